"""Sharpness: how steep intensities are along each axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.evidence.transforms import Floats, Transform

SMOOTHING = 1.0
"""Standard deviation in voxels of the Gaussian whose derivative tells slopes."""


@dataclass
class SlopeSums:
    """Sums over sub-volumes of squared slopes, of which the sharpness along each axis is made.

    The slope is that of the sub-volume smoothed by a Gaussian of one voxel, which keeps the noise
    of single voxels out; by Parseval's theorem it is ``Σ (2π f_a)² exp(-4π² f²) P(f)``.

    Attributes
    ----------
    squares : (3,) float64
        Of slopes along z, y, x, in squared intensity units per voxel².
    variance : float
        Of the smoothed sub-volumes, in squared intensity units.
    """

    squares: Floats
    variance: float

    @classmethod
    def of(cls, transform: Transform) -> SlopeSums:
        """Take the slopes of a sub-volume."""
        modes = transform.modes
        smooth = transform.power * modes.weights
        for axis in modes.axes:
            smooth = smooth * np.exp(-((2 * math.pi * SMOOTHING * axis) ** 2))
        squares = [float((smooth * (2 * math.pi * axis) ** 2).sum()) for axis in modes.axes]
        size = math.prod(modes.shape)
        return cls(np.array(squares) / size, float(smooth.sum()) / size)

    def __add__(self, other: SlopeSums) -> SlopeSums:
        """Slopes of the sub-volumes of both."""
        return SlopeSums(self.squares + other.squares, self.variance + other.variance)

    @property
    def sharpness(self) -> tuple[float, float, float] | None:
        """Root mean square slope along z, y, x over the standard deviation, per voxel.

        None where there is no structure.
        """
        if not self.variance > 0:
            return None
        z, y, x = (math.sqrt(square / self.variance) for square in self.squares)
        return z, y, x
