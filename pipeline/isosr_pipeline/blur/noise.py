"""The noise of measured planes: a variance that grows with the intensity, told from the planes.

A microscope resolves less than its voxels could hold: at the highest lateral frequencies there is
noise alone. What a filter for these leaves is compared with the local mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

_Floats = NDArray[np.float64]

MOST_PLANES = 8
"""Planes of a sub-volume that are looked at."""

_MEAN = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
_HIGHEST = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70)
_REACH = 2
_MAD = 1.4826
_BINS = 32
_FEWEST = 400


@dataclass(frozen=True)
class NoiseModel:
    """The variance of noise at an intensity I: ``gain I + floor``, in stored intensities.

    Parameters
    ----------
    gain, floor : float
        The floor may be below 0, where a camera adds an offset to what it counts.
    """

    gain: float
    floor: float

    def windowed(self, window: tuple[float, float]) -> NoiseModel:
        """Return the same for intensities with a window at 0 and 1."""
        low, width = window[0], window[1] - window[0]
        return NoiseModel(self.gain / width, (self.gain * low + self.floor) / width**2)


def estimate_noise(subvolumes: Iterable[NDArray[Any]]) -> NoiseModel:
    """Estimate the noise of a volume.

    In each of some ranges of local means the variance of the filtered planes is told from their
    median absolute deviation, so that edges and specks hardly count. A line is fitted to the
    variances, by least squares that are weighted as their errors grow.

    Parameters
    ----------
    subvolumes : iterable of ndarray, (z, y, x) of any real dtype
        Measured planes, not interpolated.

    Returns
    -------
    NoiseModel
        Without noise where there is none, or too few voxels to tell it from.
    """
    pairs = [_filtered(subvolume) for subvolume in subvolumes]
    if not pairs:
        return NoiseModel(0.0, 0.0)
    means, residuals = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    levels, variances, counts = _binned(means, residuals)
    if not len(levels):
        return NoiseModel(0.0, 0.0)
    lowest = levels[0]
    # Errors of a variance are in proportion to it.
    weights = np.sqrt(counts) / variances
    columns = np.stack([levels - lowest, np.ones_like(levels)], axis=1)
    (gain, least), _ = optimize.nnls(columns * weights[:, None], variances * weights)
    return NoiseModel(float(gain), float(least - gain * lowest))


def _filtered(subvolume: NDArray[Any]) -> tuple[_Floats, _Floats]:
    """Return local means and what a filter for the highest frequencies leaves, of some planes."""
    depth = len(subvolume)
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, MOST_PLANES)).astype(int))
    planes = np.asarray(subvolume[chosen], np.float64)
    inner = (slice(None), slice(_REACH, -_REACH), slice(_REACH, -_REACH))
    mean, highest = planes, planes
    for axis in (1, 2):
        mean = ndimage.correlate1d(mean, _MEAN, axis=axis)
        highest = ndimage.correlate1d(highest, _HIGHEST, axis=axis)
    return mean[inner].ravel(), highest[inner].ravel()


def _binned(means: _Floats, residuals: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Return mean, variance and number of voxels in ranges that hold enough, and some noise."""
    finite = np.isfinite(means) & np.isfinite(residuals)
    means, residuals = means[finite], residuals[finite]
    if not len(means):
        return np.empty(0), np.empty(0), np.empty(0)
    # Narrow where it is dark, which most of a volume is, and wide where few voxels are bright.
    edges = np.linspace(0, 1, _BINS + 1) ** 2 * np.ptp(means) + means.min()
    place = np.clip(np.searchsorted(edges, means, side="right") - 1, 0, _BINS - 1)
    found = []
    for number in range(_BINS):
        inside = place == number
        if inside.sum() >= _FEWEST:
            middle = np.median(residuals[inside])
            spread = _MAD * np.median(np.abs(residuals[inside] - middle))
            if spread > 0:
                found.append((means[inside].mean(), spread**2, inside.sum()))
    table = np.array(found, np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
