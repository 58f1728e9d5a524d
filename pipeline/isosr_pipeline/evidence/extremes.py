"""How many voxels lie at the ends of what the dtype holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class ExtremeCounts:
    """Voxels at the ends of a dtype.

    Attributes
    ----------
    voxels : int
        That were looked at.
    zeros, top : int
        Those that are 0, and the highest integer of the dtype; floats have none.
    low, high : float
        Extremes of intensity.
    """

    voxels: int
    zeros: int
    top: int
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> ExtremeCounts:
        """Count the voxels of a block.

        Parameters
        ----------
        values : (z, y, x) of the dtype in which the volume is stored
            At least one voxel.
        """
        top = 0
        if values.dtype.kind in "iu":
            top = int((values == np.iinfo(values.dtype).max).sum())
        return cls(
            voxels=values.size,
            zeros=int((values == 0).sum()),
            top=top,
            low=float(values.min()),
            high=float(values.max()),
        )

    def __add__(self, other: ExtremeCounts) -> ExtremeCounts:
        """Add up counts."""
        return ExtremeCounts(
            self.voxels + other.voxels,
            self.zeros + other.zeros,
            self.top + other.top,
            min(self.low, other.low),
            max(self.high, other.high),
        )
