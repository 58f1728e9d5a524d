"""The fit of a blur to a power spectrum: see docs/method.md, "The blur of a volume"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.power_spectra import Floats, SpectralGrid

SCALE = 4 * np.pi**2
_KNOTS = 9
_ITERATIONS = 60
_LEAKAGE_ROUNDS = 4
_CLOSE = 1e-6
# A step in the logarithm of the power; larger ones overshoot.
_LARGEST_STEP = 1.0
_FAINTEST = 1e-9


@dataclass
class BlurFit:
    """Fits ``mu = C A(|f|) exp(-4 pi^2 (gz fz^2 + gy fy^2 + gyx 2 fy fx)) + N`` to spectra.

    Parameters
    ----------
    grid : SpectralGrid
    """

    grid: SpectralGrid
    top: float = 0.25

    def __post_init__(self) -> None:
        f = self.grid.modes
        size = np.linalg.norm(f, axis=1)
        self.kept = size < self.top
        self.low = size.min()
        self.columns = self._columns(f)
        self.leakage = np.ones(len(f))

    def _columns(self, f: Floats) -> Floats:
        z, y, x = f.T
        size = np.sqrt(z**2 + y**2 + x**2)
        return np.concatenate([self._hats(size), -SCALE * np.stack([z**2, y**2, 2 * y * x], 1)], 1)

    def _hats(self, size: Floats) -> Floats:
        """Piecewise linear in ln|f|; the outermost pieces go on beyond."""
        at = np.log(np.maximum(size, 0.3 * self.low))
        knots = np.linspace(np.log(self.low), np.log(self.top), _KNOTS)
        width = knots[1] - knots[0]
        place = (at - knots[0]) / width
        below = np.clip(np.floor(place).astype(int), 0, _KNOTS - 2)
        share = place - below
        hats = np.zeros((len(at), _KNOTS))
        rows = np.arange(len(at))
        hats[rows, below] = 1 - share
        hats[rows, below + 1] = share
        return hats

    def fit(self, power: Floats, noise: Floats, start: Floats | None = None) -> Floats:
        kept = self.kept
        x, p, n, c = self.columns[kept], power[kept], noise[kept], self.leakage[kept]
        if start is None:
            start = self.start(x, p, n)
        b = start.copy()
        for _ in range(_ITERATIONS):
            signal = c * np.exp(np.minimum(x @ b, 700))
            mu = signal + n
            w = (signal / mu) ** 2
            r = (p - mu) / np.maximum(signal, 1e-300)
            xw = x * w[:, None]
            h = xw.T @ x
            h[np.diag_indices_from(h)] += 1e-9 * np.trace(h) / len(h)
            step = np.linalg.solve(h, xw.T @ r)
            move = np.abs(x @ step).max()
            b = b + step * min(1.0, _LARGEST_STEP / max(move, 1e-300)) if move > 5 else b + step
            if np.abs(x @ step).max() < 1e-4:
                break
        self.iter = _
        return b

    def start(self, x, p, n):
        target = np.log(np.maximum(p - n, 0.05 * p))
        b, *_ = np.linalg.lstsq(x, target, rcond=None)
        return b

    def correct(self, b: Floats) -> None:
        """Set leakage from a fit."""
        f = np.stack([np.broadcast_to(a, self.grid.size.shape).ravel() for a in self.grid.axes], 1)
        shape = self.grid.size.shape
        model = np.exp(np.clip(self._columns(f) @ b, -200, 200)).reshape(shape)
        model[0, 0, 0] = 0
        if self.grid.step > 1:
            for k in (-1, 1):
                g = f.copy(); g[:, 0] += k / self.grid.step
                model += np.exp(np.clip(self._columns(g) @ b, -200, 200)).reshape(shape)
        clean = np.exp(np.clip(self.columns @ b, -200, 200))
        self.leakage = np.clip(self.grid.leaked(model) / clean, 0.2, 20)
