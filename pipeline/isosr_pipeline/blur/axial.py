"""How much more a volume is blurred along z than along y and x, told from the volume alone.

An object without preferred directions has a power spectrum that depends on |f| alone; whatever more
is missing along fz was lost to the blur. All lengths are in lateral voxels, and widths are those of
the blur along z that is left when a lateral blur is taken off: ``sqrt(sz² - sx²)`` of standard
deviations. Squares of widths are fitted; by chance they may be below zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from isosr_pipeline.blur.depth import DepthTest, Stratum, test_depth
from isosr_pipeline.blur.fit import DEPENDENCE, SCALE, BlurFit, gaussian_and_directions, of_form
from isosr_pipeline.blur.form import FreeForm, Point, free_form, measured_points
from isosr_pipeline.blur.pooling import Pool, jackknife_covariance
from isosr_pipeline.blur.power_spectra import BAND, Floats, SpectralGrid

CONFIDENT = 1.96
"""Standard errors on each side of an interval of 95 %."""

_SHELL = 0.02
_LATERAL = 0.35
_LEAST_SIGNAL = 0.1
_CERTAIN = 4.0
_FEWEST_SHELLS = 3
_OUTLYING = 5.0
_MAD = 1.4826
_TOLD = 3.0

# What is fitted, from the coefficients of a Gaussian: against x, against y, and against their mean.
_AGAINST = np.array([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, -0.5, 0.0]])


@dataclass(frozen=True)
class Square:
    """The square of a width, as it was fitted.

    Parameters
    ----------
    value : float
        ``sz² - sx²`` in voxels²; below 0 where the volume looks sharper along z.
    error : float
        Standard error.
    """

    value: float
    error: float

    @property
    def sigma(self) -> float:
        """Standard deviation in voxels; 0 if the square is not above 0."""
        return math.sqrt(max(self.value, 0.0))

    @property
    def interval(self) -> tuple[float, float]:
        """Standard deviations between which the true one lies with 95 %."""
        low, high = (self.value + side * CONFIDENT * self.error for side in (-1, 1))
        return math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))


@dataclass(frozen=True)
class Lateral:
    """What is different between the directions of the XY plane.

    Parameters
    ----------
    power_ratio : float
        Of the direction with the most power to that with the least, at the frequencies that tell
        the most; 1: all are alike.
    direction : float
        Along which structures run, or the lateral blur is the widest: degrees from x towards y, 0
        to 180.
    probability : float
        That chance gives as much.
    """

    power_ratio: float
    direction: float
    probability: float


@dataclass(frozen=True)
class AxialBlur:
    """The blur of a volume along z, beyond that in the plane.

    Parameters
    ----------
    against_x, against_y, lateral : Square
        Against the blur along x, along y, and the mean of both.
    with_directions : Square
        Against the mean, if structures may prefer directions: less certain, and less biased where
        they do.
    directions : float
        By how much structures alone lower the logarithm of the power along z, and
    directions_error : float
        its standard error.
    plane : Lateral
    spread : tuple of 2 floats
        Standard deviations, in voxels, below which a sixth and five sixths of the sub-volumes lie,
        each fitted by itself.
    excess : float
        Scatter of sub-volumes over what chance gives.
    used, left_out : int
        Sub-volumes; those left out lie far off the others.
    band : tuple of 2 floats
        Frequencies |f| that were fitted, cycles per voxel.
    form : FreeForm or None
        None: too little is known of the blur to tell its form.
    depth : DepthTest
    points : tuple of Point
        What was measured along z.
    """

    against_x: Square
    against_y: Square
    lateral: Square
    with_directions: Square
    directions: float
    directions_error: float
    plane: Lateral
    spread: tuple[float, float]
    excess: float
    used: int
    left_out: int
    band: tuple[float, float]
    form: FreeForm | None
    depth: DepthTest
    points: tuple[Point, ...]


def estimate(
    grid: SpectralGrid, spectra: Sequence[tuple[Floats, Floats]], depths: Sequence[float]
) -> AxialBlur | None:
    """Estimate the blur of a volume from spectra of sub-volumes.

    Parameters
    ----------
    grid : SpectralGrid
    spectra : sequence of (power, noise)
        What `SpectralGrid.spectrum` returned.
    depths : sequence of float
        Where the centres of the sub-volumes lie along z, in lateral voxels.

    Returns
    -------
    AxialBlur or None
        None: noise hides whatever there is.
    """
    seen = [i for i, (power, _) in enumerate(spectra) if power.min() > 0]
    if not seen:
        return None
    pool, at = Pool.of([spectra[i] for i in seen]), np.asarray(depths, np.float64)[seen]
    top = _top(grid, pool)
    if top is None:
        return None
    fit = BlurFit(grid, top)
    b = fit.fit_with_leakage(*pool.mean)
    each = _each(fit, b, pool)
    kept = each.kept
    left_out = int((~kept).sum())
    pool, at = pool.part(kept), at[kept]
    b = fit.fit_with_leakage(*pool.mean)
    each = each.part(kept)
    return _described(fit, b, pool, at, each, left_out, top)


@dataclass(frozen=True)
class _Each:
    """Squares of widths of the sub-volumes, (n,), each by itself, and their expected errors."""

    squares: Floats
    errors: Floats

    @property
    def told(self) -> NDArray[np.bool_]:
        """Which tell something by themselves; those that show nothing don't."""
        return np.asarray(self.errors <= _TOLD * np.median(self.errors))

    @property
    def scatter(self) -> float:
        values = self.squares[self.told]
        return float(_MAD * np.median(np.abs(values - np.median(values))))

    @property
    def expected(self) -> float:
        return float(np.median(self.errors[self.told]))

    @property
    def kept(self) -> NDArray[np.bool_]:
        """All but those that tell something else than the others."""
        middle = np.median(self.squares[self.told])
        far = np.abs(self.squares - middle) > _OUTLYING * max(self.scatter, self.expected)
        return np.asarray(~(far & self.told))

    def part(self, chosen: NDArray[np.bool_]) -> _Each:
        return _Each(self.squares[chosen], self.errors[chosen])


def _top(grid: SpectralGrid, pool: Pool) -> float | None:
    """Return the frequency up to which lateral signal stands out; None: it doesn't."""
    power, noise = pool.mean
    size = np.linalg.norm(grid.modes, axis=1)
    lateral = np.abs(grid.modes[:, 0]) < _LATERAL * size
    low, shells = float(size.min()), 0
    for shell in range(math.ceil((BAND[1] - low) / _SHELL)):
        chosen = lateral & (size >= low + shell * _SHELL) & (size < low + (shell + 1) * _SHELL)
        if chosen.sum() < 2:
            break
        signal, floor = (power - noise)[chosen].mean(), noise[chosen].mean()
        error = floor * math.sqrt(DEPENDENCE / chosen.sum() / len(pool))
        if signal < max(_LEAST_SIGNAL * floor, _CERTAIN * error):
            break
        shells += 1
    return min(low + shells * _SHELL, BAND[1]) if shells >= _FEWEST_SHELLS else None


def _each(fit: BlurFit, b: Floats, pool: Pool) -> _Each:
    squares, errors = [], []
    weights = _AGAINST[2]
    for power, noise in zip(pool.power, pool.noise, strict=True):
        own = fit.fit(power, noise, b)
        squares.append(float(weights @ of_form(own)))
        errors.append(math.sqrt(weights @ fit.covariance(own, noise, 1) @ weights))
    return _Each(np.array(squares), np.array(errors))


def _errors(fit: BlurFit, b: Floats, pool: Pool, weights: Floats) -> Floats:
    """Return standard errors of weighted coefficients: by the scatter, or chance where larger."""
    chance = weights @ fit.covariance(b, pool.mean[1], len(pool)) @ weights.T
    errors = np.sqrt(np.diagonal(chance))
    if len(pool) < 3:
        return np.asarray(errors)
    figures = pool.jackknifed(lambda p, n: weights @ of_form(fit.fit(p, n, b)))
    # As wide for few sub-volumes as Student's distribution is.
    few = special.stdtrit(len(pool) - 1, special.ndtr(CONFIDENT)) / CONFIDENT
    return np.maximum(errors, few * np.sqrt(np.diagonal(jackknife_covariance(figures))))


def _described(
    fit: BlurFit, b: Floats, pool: Pool, at: Floats, each: _Each, left_out: int, top: float
) -> AxialBlur:
    values = _AGAINST @ of_form(b)
    errors = _errors(fit, b, pool, _AGAINST)
    x, y, mean = (Square(float(v), float(e)) for v, e in zip(values, errors, strict=True))
    free = BlurFit(fit.grid, top, gaussian_and_directions)
    c = free.fit_with_leakage(*pool.mean)
    weights = np.zeros((2, 6))
    weights[0, :3] = weights[1, 3:] = _AGAINST[2]
    freed, freed_errors = weights @ of_form(c), _errors(free, c, pool, weights)
    squares = each.squares[each.told]
    sixths = np.sqrt(np.maximum(np.quantile(squares, [1 / 6, 5 / 6]), 0))
    low = float(np.linalg.norm(fit.grid.modes, axis=1).min())
    return AxialBlur(
        against_x=x,
        against_y=y,
        lateral=mean,
        with_directions=Square(float(freed[0]), float(freed_errors[0])),
        directions=float(freed[1]),
        directions_error=float(freed_errors[1]),
        plane=_plane(free, c, pool),
        spread=(float(sixths[0]), float(sixths[1])),
        excess=each.scatter / each.expected,
        used=len(pool),
        left_out=left_out,
        band=(low, top),
        form=free_form(fit, b, pool, mean.value, top),
        depth=_depth(fit, b, pool, at, each),
        points=measured_points(fit, b, pool, mean.value),
    )


def _plane(fit: BlurFit, b: Floats, pool: Pool) -> Lateral:
    """Compare directions in the plane, by blur and by preference together."""
    told = fit.information(b, pool.mean[1])
    typical = float((told * (fit.grid.modes**2).sum(axis=1)).sum() / told.sum())
    weights = np.zeros((2, 6))
    weights[0, 1] = weights[1, 2] = SCALE * typical
    weights[0, 4] = weights[1, 5] = 1.0
    # The spectrum is exp(-(a ny² + 2 c ny nx)): its extremes lie on the axes of that tensor.
    a, c = weights @ of_form(b)
    size = math.hypot(a, 2 * c)
    covariance = weights @ fit.covariance(b, pool.mean[1], len(pool)) @ weights.T
    if len(pool) > 3:
        figures = pool.jackknifed(lambda p, n: weights @ of_form(fit.fit(p, n, b)))
        covariance = jackknife_covariance(figures)
    distance = float(np.array([a, c]) @ np.linalg.pinv(covariance) @ np.array([a, c]))
    angle = 0.5 * math.degrees(math.atan2(2 * c, -a)) % 180
    return Lateral(math.exp(min(size, 50.0)), angle, float(special.chdtrc(2, max(distance, 0.0))))


def _depth(fit: BlurFit, b: Floats, pool: Pool, at: Floats, each: _Each) -> DepthTest:
    def pooled(chosen: NDArray[np.bool_]) -> Stratum:
        part = pool.part(chosen)
        own = fit.fit(*part.mean, b)
        value = float(_AGAINST[2] @ of_form(own))
        error = float(_errors(fit, own, part, _AGAINST[2:])[0])
        first, last = float(at[chosen].min()), float(at[chosen].max())
        return Stratum(first, last, value, error, int(chosen.sum()))

    thickness = fit.grid.shape[0] * fit.grid.step
    return test_depth(at, each.squares, each.told, thickness, pooled)
