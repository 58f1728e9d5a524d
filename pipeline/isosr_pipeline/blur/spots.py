"""Gaussians fitted to bright spots: of beads, and of PSFs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from isosr_pipeline.widths import FWHM_PER_SIGMA

_Floats = NDArray[np.float64]

_STEPS = 100
FITTED = 1.5
"""How far from the brightest voxel a Gaussian is fitted, in widths at half maximum."""


@dataclass(frozen=True)
class Spot:
    """A Gaussian spot on an even background.

    Attributes
    ----------
    amplitude, background : float
        In the units of the volume; the height above the background.
    centre : tuple of 3 floats
        In voxels, order z, y, x.
    sigma : tuple of 3 floats
        Standard deviations in voxels, order z, y, x.
    explained : float
        Share of the variance in the volume that it accounts for.
    """

    amplitude: float
    background: float
    centre: tuple[float, float, float]
    sigma: tuple[float, float, float]
    explained: float

    @property
    def fwhm(self) -> tuple[float, float, float]:
        """Full widths at half maximum in voxels, order z, y, x."""
        z, y, x = (FWHM_PER_SIGMA * sigma for sigma in self.sigma)
        return z, y, x


def fit_spot(volume: NDArray[Any]) -> Spot | None:
    """Fit a Gaussian with axes along z, y and x, and an even background, by least squares.

    The volume is cut to 1.5 widths at half maximum around its brightest voxel first, where a PSF is
    most like a Gaussian.

    Parameters
    ----------
    volume : ndarray, (z, y, x)
        With one bright spot.

    Returns
    -------
    Spot or None
        None where no spot is found: the fit fails, or ends outside the volume.
    """
    found = _fitted(np.asarray(volume, np.float64))
    if found is None:
        return None
    amplitude, background, centre, sigma, explained = found
    z, y, x = centre
    sz, sy, sx = sigma
    return Spot(amplitude, background, (z, y, x), (sz, sy, sx), explained)


def fit_section(section: NDArray[Any]) -> tuple[float, float] | None:
    """Fit a Gaussian to a spot in a section as `fit_spot` does in a volume.

    Parameters
    ----------
    section : ndarray, (rows, columns)
        With one bright spot.

    Returns
    -------
    tuple of 2 floats or None
        Full widths at half maximum in pixels, along the first and the second axis; None where no
        spot is found.
    """
    found = _fitted(np.asarray(section, np.float64))
    if found is None:
        return None
    first, second = (FWHM_PER_SIGMA * sigma for sigma in found[3])
    return first, second


_Fit = tuple[float, float, list[float], list[float], float]


def _fitted(values: _Floats) -> _Fit | None:
    """Return amplitude, background, centre, standard deviations, and the share explained."""
    peak = np.unravel_index(int(values.argmax()), values.shape)
    low = float(np.median(values))
    half = (values.max() - low) / 2 + low
    if not half > low:
        return None
    axes = range(values.ndim)
    widths = [width_at(_line(values, peak, axis), int(peak[axis]), half) for axis in axes]
    starts = [max(0, math.floor(p - FITTED * w)) for p, w in zip(peak, widths, strict=True)]
    stops = [math.ceil(p + FITTED * w) + 1 for p, w in zip(peak, widths, strict=True)]
    part = values[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))]
    centre = [p - a for p, a in zip(peak, starts, strict=True)]
    sigma = [max(w, 1.0) / FWHM_PER_SIGMA for w in widths]
    begin = [values.max() - low, low, *centre, *np.log(sigma)]
    if part.size < len(begin):
        return None
    found = least_squares(_residuals, begin, args=(part,), max_nfev=_STEPS, x_scale="jac")
    if not found.success or not np.isfinite(found.x).all():
        return None
    amplitude, background, *rest = map(float, found.x)
    centres, logs = rest[: values.ndim], rest[values.ndim :]
    inside = all(-0.5 <= c <= n - 0.5 for c, n in zip(centres, part.shape, strict=True))
    if amplitude <= 0 or not inside or max(logs) > math.log(4 * max(part.shape)):
        return None
    explained = 1 - float(np.mean(found.fun**2)) / float(part.var())
    places = [c + a for c, a in zip(centres, starts, strict=True)]
    return amplitude, background, places, [math.exp(one) for one in logs], explained


def width_at(profile: _Floats, peak: int, level: float) -> float:
    """Return how wide a profile is at a level, in voxels, from its peak outwards.

    Parameters
    ----------
    profile : ndarray, (n,)
    peak : int
        Where it is above the level.
    level : float
    """
    return _to_level(profile[peak::-1], level) + _to_level(profile[peak:], level)


def _to_level(falling: _Floats, level: float) -> float:
    below = np.flatnonzero(falling < level)
    if not len(below):
        return float(len(falling) - 1)
    after = int(below[0])
    if after == 0:
        return 0.0
    return after - float((level - falling[after]) / (falling[after - 1] - falling[after]))


def _line(values: _Floats, peak: tuple[np.intp, ...], axis: int) -> _Floats:
    place = tuple(slice(None) if a == axis else int(p) for a, p in enumerate(peak))
    return values[place]


def _residuals(parameters: _Floats, values: _Floats) -> _Floats:
    amplitude, background = parameters[:2]
    axes = values.ndim
    shapes = zip(values.shape, parameters[2 : 2 + axes], parameters[2 + axes :], strict=True)
    profiles = [
        np.exp(-0.5 * ((np.arange(n) - centre) / math.exp(min(log_sigma, 50.0))) ** 2)
        for n, centre, log_sigma in shapes
    ]
    model = background + amplitude * reduce(np.multiply.outer, profiles)
    return np.asarray((model - values).ravel(), np.float64)
