"""Sharpness: how steep intensities are along each axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.evidence.transforms import Floats, Transform

SMOOTHING = 1.0
"""Standard deviation in voxels of the Gaussian whose derivative tells slopes."""

_LEAST_SIGNAL = 0.05
"""Variance over that of noise, below which slopes are chance."""


@dataclass
class SlopeSums:
    """Sums over sub-volumes of squared slopes, of which the sharpness along each axis is made.

    The slope is that of the sub-volume smoothed by a Gaussian of one voxel, which keeps the noise
    of single voxels out; by Parseval's theorem it is ``Σ (2π f_a)² exp(-4π² f²) (P(f) - N)``. What
    white noise adds, of power N in the corners of the spectrum, is left out: a volume would seem to
    lose detail where it only loses noise.

    Attributes
    ----------
    squares : (3,) float64
        Of slopes along z, y, x, in squared intensity units per voxel².
    variance : float
        Of the smoothed sub-volumes, in squared intensity units.
    noise : float
        What white noise added to the variance.
    """

    squares: Floats
    variance: float
    noise: float

    @classmethod
    def of(cls, transform: Transform) -> SlopeSums:
        """Take the slopes of a sub-volume."""
        modes = transform.modes
        gain = np.broadcast_to(modes.weights, modes.size.shape)
        for axis in modes.axes:
            gain = gain * np.exp(-((2 * math.pi * SMOOTHING * axis) ** 2))
        smooth = (transform.power - transform.floor) * gain
        squares = [float((smooth * (2 * math.pi * axis) ** 2).sum()) for axis in modes.axes]
        size = math.prod(modes.shape)
        noise = transform.floor * float(gain.sum()) / size
        return cls(np.array(squares) / size, float(smooth.sum()) / size, noise)

    def __add__(self, other: SlopeSums) -> SlopeSums:
        """Slopes of the sub-volumes of both."""
        return SlopeSums(
            self.squares + other.squares,
            self.variance + other.variance,
            self.noise + other.noise,
        )

    @property
    def sharpness(self) -> tuple[float, float, float] | None:
        """Root mean square slope along z, y, x over the standard deviation, per voxel.

        None where there is no structure, or next to none beside the noise.
        """
        if not self.variance > _LEAST_SIGNAL * self.noise or self.variance <= 0:
            return None
        if not (self.squares > 0).all():
            return None
        z, y, x = (math.sqrt(square / self.variance) for square in self.squares)
        return z, y, x
