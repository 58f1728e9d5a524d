"""The form of a blur's transfer function, where it is not a Gaussian's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from isosr_pipeline.blur.fit import DEPENDENCE, SCALE, BlurFit, Columns, of_form
from isosr_pipeline.blur.pooling import Pool, jackknife_covariance
from isosr_pipeline.blur.power_spectra import Floats

HALF_TIMES_SIGMA = math.sqrt(2 * math.log(2)) / (2 * math.pi)
"""Frequency at which a Gaussian's amplitude has fallen to half, times its standard deviation."""

_PIECES = 6
_UNLIKELY = 0.001
_FEWEST_MODES = 30.0
_FAINTEST = -0.95
_MOST_ERROR = 0.5
_LEAST_ERROR = 1e-6
_ALIKE = 0.1


@dataclass(frozen=True)
class FreeForm:
    """The transfer function along z, relative to that in the plane, with no form given.

    Parameters
    ----------
    frequencies : tuple of float
        |fz| in cycles per lateral voxel, from 0 on.
    amplitudes : tuple of float
        1 at frequency 0, and never rising.
    errors : tuple of float
        Standard errors of their logarithms.
    gaussian : bool
        False: a Gaussian is refused by the data.
    probability : float
        That the data of a Gaussian differ from it as much.
    sigma : float or None
        In voxels, of the Gaussian that falls to half its amplitude at the same frequency; None: the
        amplitude doesn't fall to half where the data tell it.
    """

    frequencies: tuple[float, ...]
    amplitudes: tuple[float, ...]
    errors: tuple[float, ...]
    gaussian: bool
    probability: float
    sigma: float | None


def free_form(fit: BlurFit, b: Floats, pool: Pool, square: float, top: float) -> FreeForm | None:
    """Fit the transfer function with no form given, and compare it with the Gaussian.

    Parameters
    ----------
    fit : BlurFit
        Of a Gaussian.
    b : (coefficients,) float64
        What it found.
    pool : Pool
    square : float
        Of the Gaussian's width, in voxels², against the mean of y and x.
    top : float
        Frequency |f| below which modes are fitted.

    Returns
    -------
    FreeForm or None
        None: there are fewer than three sub-volumes for each frequency that would be fitted.
    """
    axial = np.abs(fit.grid.modes[:, 0])
    end = _end(axial, fit.information(b, pool.mean[1]), len(pool))
    pieces = min(_PIECES, len(pool) // 3)
    if end is None or pieces < 3:
        return None
    knots = np.linspace(0, end, pieces + 1)
    free = BlurFit(fit.grid, top, _hats(knots), known=of_form(b))
    found = free.fit_with_leakage(*pool.mean)
    away = of_form(found)
    covariance = jackknife_covariance(pool.jackknifed(lambda p, n: of_form(free.fit(p, n, found))))
    distance = max(0.0, float(away @ np.linalg.pinv(covariance, hermitian=True) @ away))
    # Hotelling's test: a covariance from few sub-volumes is uncertain itself.
    count = len(pool)
    ratio = distance * (count - pieces) / (pieces * (count - 1))
    probability = float(special.fdtrc(pieces, count - pieces, ratio))
    return _made(knots, away, np.sqrt(np.diagonal(covariance)), square, probability)


def _end(axial: Floats, told: Floats, subvolumes: int) -> float | None:
    """Return the frequency up to which modes tell something; None: hardly any does."""
    planes, number = np.unique(np.round(axial, 9), return_inverse=True)
    independent = np.bincount(number, told) * subvolumes / DEPENDENCE
    faint = np.flatnonzero(independent < _FEWEST_MODES)
    last = (faint[0] if len(faint) else len(planes)) - 1
    return float(planes[last]) if last >= 2 else None


def _hats(knots: Floats) -> Columns:
    """Columns of a function of |fz| that is 0 at the first knot and constant beyond the last."""

    def columns(f: Floats) -> Floats:
        axial = np.abs(f[:, 0])
        units = np.eye(len(knots))[1:]
        return np.stack([np.interp(axial, knots, unit) for unit in units], axis=1)

    return columns


def _made(
    knots: Floats, away: Floats, errors: Floats, square: float, probability: float
) -> FreeForm:
    logarithm = 0.5 * (np.append(0.0, away) - SCALE * square * knots**2)
    certain = np.maximum(errors, _LEAST_ERROR)
    weights = np.append(certain.min(), certain) ** -2
    falling = optimize.isotonic_regression(logarithm, weights=weights, increasing=False).x
    falling = np.minimum(falling - falling[0], 0.0)
    half = math.log(0.5)
    sigma = None
    if falling[-1] < half:
        sigma = HALF_TIMES_SIGMA / float(np.interp(-half, -falling, knots))
    own = math.sqrt(max(square, 0.0))
    alike = sigma is not None and abs(sigma - own) <= _ALIKE * own
    reached = own * knots[-1] > HALF_TIMES_SIGMA
    differs = not alike and (reached or sigma is not None)
    return FreeForm(
        frequencies=tuple(map(float, knots)),
        amplitudes=tuple(map(float, np.exp(falling))),
        errors=(0.0, *map(float, 0.5 * errors)),
        gaussian=not (differs and probability < _UNLIKELY),
        probability=probability,
        sigma=sigma,
    )


@dataclass(frozen=True)
class Point:
    """What was measured at one frequency along z.

    Parameters
    ----------
    frequency : float
        |fz| in cycles per lateral voxel.
    logarithm : float
        Of the power there over that at the same |f| in the plane.
    error : float
        Standard error, if powers scatter as a random object's.
    """

    frequency: float
    logarithm: float
    error: float


def measured_points(fit: BlurFit, b: Floats, pool: Pool, square: float) -> tuple[Point, ...]:
    """Return what the data say at each frequency along z, for the eye to compare with the fit.

    Parameters
    ----------
    fit : BlurFit
        Of a Gaussian.
    b : (coefficients,) float64
        What it found.
    pool : Pool
    square : float
        Of the Gaussian's width, in voxels², against the mean of y and x.
    """
    told = fit.information(b, pool.mean[1])
    away = fit.residuals(b, *pool.mean)
    axial = np.round(np.abs(fit.grid.modes[:, 0]), 9)
    points = []
    for frequency in np.unique(axial):
        plane = axial == frequency
        weight = float(told[plane].sum())
        error = math.sqrt(DEPENDENCE / (weight * len(pool))) if weight else math.inf
        if error > _MOST_ERROR:
            continue
        mean = float((told[plane] * away[plane]).sum()) / weight
        logarithm = math.log1p(max(mean, _FAINTEST)) - SCALE * square * frequency**2
        points.append(Point(float(frequency), logarithm, error))
    return tuple(points)
