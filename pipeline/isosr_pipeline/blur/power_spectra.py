"""Power spectra of sub-volumes on the grid on which they were measured, and their noise.

Nothing is resampled: interpolation along z would colour the noise. Frequencies are in cycles per
lateral voxel along all axes, whatever the distance of the planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from isosr_pipeline.errors import InputError

Floats = NDArray[np.float64]

BAND = (0.03, 0.25)
"""Frequencies |f| that are looked at, cycles per lateral voxel."""

MIN_EDGE = 32
"""Least length of a sub-volume along y and x, voxels; along z, lateral voxels."""

MIN_PLANES = 10
"""Least number of measured planes in a sub-volume."""

# Below two and a half bins of the transform, what the Hann window spreads of the mean is left.
_FEWEST_BINS = 2.5
# Planes that flicker have their power where both lateral frequencies are next to zero.
_LEAST_LATERAL_BINS = 1.5
_LARGEST_SHARE_OF_NYQUIST = 0.9
_NOISE_FREQUENCY = 0.5


@dataclass(frozen=True)
class SpectralGrid:
    """The frequencies of a sub-volume's discrete Fourier transform.

    Parameters
    ----------
    shape : tuple of 3 ints
        Of the sub-volume in measured voxels, order z, y, x.
    step : float
        Distance of two planes, in lateral voxels.

    Raises
    ------
    InputError
        When it is too small to be looked at.
    """

    shape: tuple[int, int, int]
    step: float

    def __post_init__(self) -> None:
        """Refuse what is too small."""
        depth, height, width = self.shape
        for axis, length in (("z", depth * self.step), ("y", height), ("x", width)):
            if length < MIN_EDGE - 0.5 * max(self.step, 1.0):
                raise InputError(
                    f"subvolume: {length:.3g} lateral voxels along {axis}, and a blur can be told "
                    f"from {MIN_EDGE} on; take a larger part of the volume"
                )
        if depth < MIN_PLANES:
            raise InputError(
                f"subvolume: {depth} planes, and a blur can be told from {MIN_PLANES} on; take a "
                "larger part of the volume"
            )

    @cached_property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Frequencies along z, y and x, made to broadcast; of x the half that is not negative."""
        depth, height, width = self.shape
        z = np.asarray(np.fft.fftfreq(depth) / self.step, np.float64)
        y = np.asarray(np.fft.fftfreq(height), np.float64)
        x = np.asarray(np.fft.rfftfreq(width), np.float64)
        return z[:, None, None], y[None, :, None], x[None, None, :]

    @cached_property
    def size(self) -> Floats:
        """The length |f| of each frequency, (z, y, half of x)."""
        z, y, x = self.axes
        return np.asarray(np.sqrt(z**2 + y**2 + x**2))

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """Which modes are looked at, (z, y, half of x)."""
        z, y, x = self.axes
        bins = max(1 / (self.shape[0] * self.step), 1 / self.shape[1], 1 / self.shape[2])
        low, high = max(BAND[0], _FEWEST_BINS * bins), BAND[1]
        nyquist = _LARGEST_SHARE_OF_NYQUIST * 0.5 / self.step
        lateral = np.hypot(y * self.shape[1], x * self.shape[2])
        inside = (self.size >= low) & (self.size < high) & (np.abs(z) < nyquist)
        # Half of the modes with fx = 0 are the mirror images of the others.
        mirrored = (x == 0) & ((y < 0) | ((y == 0) & (z < 0)))
        return np.asarray(inside & (lateral > _LEAST_LATERAL_BINS) & ~mirrored)

    @cached_property
    def modes(self) -> Floats:
        """Frequencies of the modes that are looked at, (modes, 3), order z, y, x."""
        return np.stack([np.broadcast_to(a, self.size.shape)[self.used] for a in self.axes], axis=1)

    @cached_property
    def _window(self) -> tuple[Floats, ...]:
        """Hann windows, whose spectra are three bins wide."""
        return tuple(
            np.expand_dims(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n), others)
            for n, others in zip(self.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
        )

    @cached_property
    def _corners(self) -> NDArray[np.bool_]:
        """Lateral frequencies at which a sampled image has no signal, (y, half of x)."""
        _, y, x = self.axes
        return np.asarray(np.hypot(y[0], x[0]) >= _NOISE_FREQUENCY)

    def spectrum(self, subvolume: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return the power of a sub-volume, and of its noise.

        Parameters
        ----------
        subvolume : (z, y, x) of any real dtype
            Of the grid's shape.

        Returns
        -------
        power : (modes,) float64
            Of the modes that are looked at.
        noise : (modes,) float64
            Mean power at the same axial frequency of the lateral frequencies from 0.5 cycles per
            voxel on, where an image has no signal: noise need not be white along z.

        Raises
        ------
        InputError
            If its shape is another, or it has NaN or infinite voxels.
        """
        values = np.array(subvolume, np.float64)
        if values.shape != self.shape:
            raise InputError(f"subvolume: shape {values.shape} is not the grid's {self.shape}")
        if not np.isfinite(values).all():
            raise InputError("subvolume: NaN or infinite voxels have no spectrum; repair them")
        z, y, x = self._window
        window = z * y * x
        values -= (values * window).sum() / window.sum()
        values *= window
        power = np.abs(fft.rfftn(values)) ** 2
        floor = power[:, self._corners].mean(axis=1)
        # A real image has the same power at fz and at -fz on average over the corners.
        floor = 0.5 * (floor + np.roll(floor[::-1], 1))
        planes = np.broadcast_to(floor[:, None, None], power.shape)
        return power[self.used], planes[self.used]

    def leaked(self, power: Floats) -> Floats:
        """Return what the window makes of a power spectrum.

        Parameters
        ----------
        power : (z, y, half of x) float64
            Of a stationary random object, at all modes of the grid.

        Returns
        -------
        (modes,) float64
            At the modes that are looked at: the mean over a mode and its neighbours, by a sixth,
            two thirds and a sixth along each axis, which are those of the Hann window.
        """
        spread = power
        for axis in (0, 1):
            beside = np.roll(spread, 1, axis) + np.roll(spread, -1, axis)
            spread = (4 * spread + beside) / 6
        # Along x only half of the spectrum is there; the modes at its ends meet mirror images.
        padded = np.concatenate([_mirrored(spread[..., 1:2]), spread, spread[..., -2:-1]], axis=2)
        spread = (4 * spread + padded[..., :-2] + padded[..., 2:]) / 6
        return np.asarray(spread[self.used])


def _mirrored(power: Floats) -> Floats:
    """Power at -f of power at f, for a plane of the spectrum."""
    return np.roll(power[::-1, ::-1], (1, 1), (0, 1))
