"""The fit of a blur to a power spectrum: see docs/method.md, "The blur of a volume".

The power at a frequency f is taken to be ::

    mu(f) = C(f) A(|f|) T(f) + N(fz)

with `A` the object's, free but for depending on |f| alone, `T` the blur's, `N` the noise, and `C`
what the window's leakage and the distance of the planes make of the spectrum. Powers scatter about
`mu` in proportion to it, as those of a random object do (Whittle's likelihood), so that no mode
need be left out for being faint, which would favour those that chance has made bright.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.power_spectra import Floats, SpectralGrid
from isosr_pipeline.errors import InputError

SCALE = 4 * np.pi**2
"""A Gaussian of standard deviation sigma has the power exp(-SCALE sigma² f²)."""

DEPENDENCE = (1 + 2 * (2 / 3) ** 2 + 2 * (1 / 6) ** 2) ** 3
"""Modes under a Hann window that are worth one independent mode."""

Columns = Callable[[Floats], Floats]
"""Make of frequencies (n, 3) the columns (n, k) whose coefficients are fitted to ln T."""

_KNOTS = 9
_ITERATIONS = 60
_ROUNDS = 4
_CLOSE = 1e-4
# Of the logarithm of the power in one step; larger ones overshoot.
_LARGEST_STEP = 5.0
_RIDGE = 1e-9
_LARGEST_LOGARITHM = 200.0
_LOWEST_SHARE = 0.05
_TRUSTED = 0.02
_LEAST_LEAKAGE, _MOST_LEAKAGE = 0.2, 20.0


def gaussian(f: Floats) -> Floats:
    """Return the columns of a Gaussian blur.

    Parameters
    ----------
    f : (n, 3) float64
        Frequencies, order z, y, x, cycles per lateral voxel.

    Returns
    -------
    (n, 3) float64
        Coefficients are ``sz² - sx²``, ``sy² - sx²`` and the covariance of y and x, of the blur's
        standard deviations in voxels.
    """
    z, y, x = f.T
    return np.asarray(-SCALE * np.stack([z**2, y**2, 2 * y * x], axis=1))


def gaussian_and_directions(f: Floats) -> Floats:
    """Return the columns of a Gaussian blur and of an object that prefers directions.

    Returns
    -------
    (n, 6) float64
        Those of `gaussian`; and the same of the direction f/|f| alone, since long straight
        structures prefer directions alike at all frequencies, where a blur grows with them.
    """
    size = np.maximum(np.linalg.norm(f, axis=1), np.finfo(float).tiny)
    return np.concatenate([gaussian(f), gaussian(f / size[:, None]) / SCALE], axis=1)


class BlurFit:
    """Fits `A` and `T` to spectra of sub-volumes of one shape.

    Parameters
    ----------
    grid : SpectralGrid
    top : float
        Frequency |f| below which modes are fitted.
    columns : Columns
        Of ln T.
    known : (3,) float64, optional
        Coefficients of a Gaussian that is a part of T and not fitted.
    """

    def __init__(
        self,
        grid: SpectralGrid,
        top: float,
        columns: Columns = gaussian,
        known: Floats | None = None,
    ) -> None:
        self.grid = grid
        self._size = np.linalg.norm(grid.modes, axis=1)
        self._kept = self._size < top
        self._ends = np.log(self._size.min()), np.log(top)
        self._form = columns
        self._known = np.zeros(3) if known is None else known
        self._x = self._columns(grid.modes)
        self._offset = self._of_known(grid.modes)
        self._leakage = np.ones(len(self._x))

    def _columns(self, f: Floats) -> Floats:
        return np.concatenate([self._hats(np.linalg.norm(f, axis=1)), self._form(f)], axis=1)

    def _of_known(self, f: Floats) -> Floats:
        return np.asarray(gaussian(f) @ self._known)

    def _hats(self, size: Floats) -> Floats:
        """Return the columns of ln A: linear in ln|f| between knots, and on beyond the outermost.

        Straight pieces and not shells: power falls so steeply that within a shell it would matter
        where in it the few modes of a direction lie.
        """
        low, high = self._ends
        at = np.log(np.maximum(size, 0.3 * np.exp(low)))
        place = (at - low) / (high - low) * (_KNOTS - 1)
        below = np.clip(place.astype(np.intp), 0, _KNOTS - 2)
        rows = np.arange(len(at))
        hats = np.zeros((len(at), _KNOTS))
        hats[rows, below] = 1 - (place - below)
        hats[rows, below + 1] = place - below
        return hats

    def fit(self, power: Floats, noise: Floats, start: Floats | None = None) -> Floats:
        """Find the likeliest coefficients, by Fisher's scoring.

        Parameters
        ----------
        power, noise : (modes,) float64
            Of one sub-volume, or means over several.
        start : (coefficients,) float64, optional

        Returns
        -------
        (coefficients,) float64
            Those of ln A and then those of ln T.

        Raises
        ------
        InputError
            When the spectrum determines none.
        """
        x, p, n = self._x[self._kept], power[self._kept], noise[self._kept]
        b = self._start(x, p, n) if start is None else start.copy()
        for _ in range(_ITERATIONS):
            signal, weight = self._weights(b, n)
            step = self._solved(x, weight, (p - signal - n) / signal)
            move = float(np.abs(x @ step).max())
            b += step * min(1.0, _LARGEST_STEP / max(move, _CLOSE))
            if move < _CLOSE:
                break
        if not np.isfinite(b).all():
            raise InputError("spectrum: it determines no blur; take another part of the volume")
        return b

    def _start(self, x: Floats, p: Floats, n: Floats) -> Floats:
        target = np.log(np.maximum(p - n, _LOWEST_SHARE * p))
        return np.asarray(np.linalg.lstsq(x, target - self._offset[self._kept])[0], np.float64)

    def _weights(self, b: Floats, n: Floats) -> tuple[Floats, Floats]:
        logarithm = self._x[self._kept] @ b + self._offset[self._kept]
        signal = self._leakage[self._kept] * _exp(logarithm)
        # What an ideal object would have here without the blur, and the share of it to which the
        # form of a blur can be trusted: its faint tails must not outweigh its core.
        unblurred = _exp(self._x[self._kept][:, :_KNOTS] @ b[:_KNOTS])
        return signal, (signal / (signal + n + _TRUSTED * unblurred)) ** 2

    @staticmethod
    def _solved(x: Floats, weight: Floats, residual: Floats) -> Floats:
        weighted = x * weight[:, None]
        matrix = weighted.T @ x
        matrix[np.diag_indices_from(matrix)] *= 1 + _RIDGE
        matrix[np.diag_indices_from(matrix)] += np.finfo(float).tiny
        return np.asarray(np.linalg.lstsq(matrix, weighted.T @ residual)[0], np.float64)

    def information(self, b: Floats, noise: Floats) -> Floats:
        """Return how much each mode tells, (modes,): 1 where all is signal, 0 where all is noise.

        Parameters
        ----------
        b : (coefficients,) float64
        noise : (modes,) float64
        """
        told = np.zeros(len(self._x))
        told[self._kept] = self._weights(b, noise[self._kept])[1]
        return told

    def residuals(self, b: Floats, power: Floats, noise: Floats) -> Floats:
        """Return by how much of the signal each mode, (modes,), is off; 0 for those not fitted."""
        away = np.zeros(len(self._x))
        kept = self._kept
        signal, _ = self._weights(b, noise[kept])
        away[kept] = (power[kept] - noise[kept]) / signal - 1
        return away

    def covariance(self, b: Floats, noise: Floats, subvolumes: int) -> Floats:
        """Return that of the coefficients of ln T, if powers scatter as a random object's.

        Parameters
        ----------
        b : (coefficients,) float64
        noise : (modes,) float64
        subvolumes : int
            Over which means were taken.
        """
        x, weight = self._x[self._kept], self._weights(b, noise[self._kept])[1]
        inverse = np.linalg.pinv((x * weight[:, None]).T @ x, hermitian=True)
        return np.asarray(inverse[_KNOTS:, _KNOTS:] * DEPENDENCE / subvolumes)

    def fit_with_leakage(self, power: Floats, noise: Floats) -> Floats:
        """Fit, find what leakage makes of the spectrum that was found, and fit again.

        Further fits of the same object take the leakage into account, too.
        """
        b = self.fit(power, noise)
        for _ in range(_ROUNDS):
            self._leakage = self._leaked(b)
            b = self.fit(power, noise, b)
        return b

    def _model(self, f: Floats, b: Floats) -> Floats:
        return _exp(self._columns(f) @ b + self._of_known(f))

    def _leaked(self, b: Floats) -> Floats:
        shape, step = self.grid.size.shape, self.grid.step
        f = np.stack([np.broadcast_to(a, shape).ravel() for a in self.grid.axes], axis=1)
        model = self._model(f, b)
        # Planes that lie further apart than voxels show waves that are too short for them as
        # longer ones.
        for shift in (-1 / step, 1 / step) if step > 1 else ():
            model += self._model(f + np.array([shift, 0.0, 0.0]), b)
        model[0] = 0  # The mean has been taken off.
        clean = _exp(self._x @ b + self._offset)
        leaked = self.grid.leaked(model.reshape(shape)) / clean
        return np.clip(leaked, _LEAST_LEAKAGE, _MOST_LEAKAGE)


def of_form(b: Floats) -> Floats:
    """Return the coefficients of ln T."""
    return b[_KNOTS:]


def _exp(logarithm: Floats) -> NDArray[np.float64]:
    return np.exp(np.clip(logarithm, -_LARGEST_LOGARITHM, _LARGEST_LOGARITHM))
