"""Fourier transforms of sub-volumes, from which all figures of spectra are made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from isosr_pipeline.errors import InputError

Floats = NDArray[np.float64]

MIN_SUBVOLUME = 16
"""Least extent of a sub-volume along each axis, voxels."""

NOISE_FREQUENCY = 0.5
"""|f| from which on a sampled image has no signal: the corners of its spectrum."""


@dataclass(frozen=True)
class Modes:
    """The modes of a real sub-volume's transform: of x the half that is not negative.

    Parameters
    ----------
    shape : tuple of 3 ints
        Of the sub-volume in voxels, order z, y, x.
    """

    shape: tuple[int, int, int]

    @cached_property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Frequencies along z, y and x in cycles per voxel, made to broadcast."""
        depth, height, width = self.shape
        z = np.asarray(np.fft.fftfreq(depth), np.float64)
        y = np.asarray(np.fft.fftfreq(height), np.float64)
        x = np.asarray(np.fft.rfftfreq(width), np.float64)
        return z[:, None, None], y[None, :, None], x[None, None, :]

    @cached_property
    def size(self) -> Floats:
        """The length |f| of each frequency, (z, y, half of x)."""
        z, y, x = self.axes
        return np.asarray(np.sqrt(z**2 + y**2 + x**2))

    @cached_property
    def weights(self) -> Floats:
        """How many modes of the whole spectrum each one stands for, (half of x,): 1 or 2."""
        weights = np.full(self.shape[2] // 2 + 1, 2.0)
        weights[0] = 1.0
        if self.shape[2] % 2 == 0:
            weights[-1] = 1.0
        return weights

    @cached_property
    def corners(self) -> NDArray[np.bool_]:
        """Modes without signal, (z, y, half of x)."""
        return np.asarray(self.size >= NOISE_FREQUENCY)

    def within(self, axis: int, cosine: float) -> NDArray[np.bool_]:
        """Return which modes lie in the cone around a frequency axis, (z, y, half of x).

        Parameters
        ----------
        axis : int
            0, 1, 2 for z, y, x.
        cosine : float
            Of the cone's half angle.
        """
        return np.asarray(np.abs(self.axes[axis]) >= cosine * self.size)


@lru_cache(maxsize=2)
def modes_of(shape: tuple[int, int, int]) -> Modes:
    """Return the modes of a shape; those of the last few shapes are kept."""
    return Modes(shape)


class Transform:
    """The discrete Fourier transform of a sub-volume, less its mean, under a 3D Hann window.

    Parameters
    ----------
    subvolume : (z, y, x) of any real dtype
        At least 16 voxels along each axis.

    Raises
    ------
    InputError
        If it is not three-dimensional, too small, or has NaN or infinite voxels.

    Attributes
    ----------
    is_flat : bool
        Whether all voxels are alike, so that there is no spectrum: all modes are zero.
    modes : Modes
    values : (z, y, half of x) complex128
    """

    def __init__(self, subvolume: NDArray[Any]) -> None:
        voxels = np.asarray(subvolume, np.float64)
        if voxels.ndim != 3 or min(voxels.shape) < MIN_SUBVOLUME:
            raise InputError(
                f"subvolume: shape {voxels.shape} is not (z, y, x) with at least {MIN_SUBVOLUME} "
                "voxels along each axis; resample the volume to isotropic voxels or take a larger "
                "part"
            )
        if not np.isfinite(voxels).all():
            raise InputError(
                "subvolume: NaN or infinite voxels have no spectrum; repair them first"
            )
        depth, height, width = voxels.shape
        self.modes = modes_of((depth, height, width))
        self.is_flat = bool(np.ptp(voxels) == 0)
        windowed = voxels - voxels.mean()
        self._window_power = 1.0
        for axis, size in enumerate(voxels.shape):
            window = np.hanning(size + 2)[1:-1]
            windowed *= np.expand_dims(window, [a for a in range(3) if a != axis])
            self._window_power *= float((window**2).sum())
        if self.is_flat:
            windowed[:] = 0.0
        self.values: NDArray[np.complex128] = np.asarray(fft.rfftn(windowed), np.complex128)

    @cached_property
    def power(self) -> Floats:
        """Power, (z, y, half of x): white noise of variance s² has s² at all modes."""
        squares = self.values.real**2 + self.values.imag**2
        return np.asarray(squares / self._window_power, np.float64)

    @cached_property
    def floor(self) -> float:
        """Mean power in the corners of the spectrum: of noise, where noise is white."""
        corners = self.modes.corners
        weights = np.broadcast_to(self.modes.weights, corners.shape)[corners]
        return float((self.power[corners] * weights).sum() / weights.sum())
