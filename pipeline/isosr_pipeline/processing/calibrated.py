"""A source whose voxel size is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.processing.base import ForwardingSource
from isosr_pipeline.sources.base import Source


@dataclass(frozen=True)
class CalibratedSource(ForwardingSource[Source]):
    """A source as it is, with its own voxel size or a given one; see `PlacedSource`.

    Parameters
    ----------
    inner : Source
    given : tuple of 3 floats or None
        Voxel size in µm, order z, y, x; None: as the source says.

    Raises
    ------
    InputError
        When neither is known.
    """

    given: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.given is None and self.inner.voxel_size is None:
            raise InputError(
                f"{self.inner.path} does not say how large its voxels are; give --voxel-size "
                "Z,Y,X in µm, such as --voxel-size 5,2,2"
            )

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        size = self.given or self.inner.voxel_size
        if size is None:
            raise InputError(f"{self.path} does not say how large its voxels are")
        return size

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel, in µm."""
        return (0.0, 0.0, 0.0)

    def acquired(self, box: Box) -> NDArray[np.bool_]:
        """Tell which rows of a box were acquired: all of them; returns (z, y)."""
        return np.ones(box.shape[:2], np.bool_)
