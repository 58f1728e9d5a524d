"""How the intensities of a re-blurred volume are brought to those that were measured.

One gain and one offset hold for a whole channel. Fitted place by place, they would take away what
is looked for: a structure that fills a neighbourhood would be explained by its gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.noise import NoiseModel
from isosr_pipeline.trust.evidence import Terms

_Floats = NDArray[np.float64]

MOST_PAIRS = 4096
"""Voxels of a place that are compared."""

_ROUNDS = 8
_OUTLYING = 4.0
_MAD = 1.4826
_DARK = 5.0
"""Percentile of what is explained that is taken for the background."""

_CERTAIN = 0.02
_DIM = 0.1
_LEAST_SPREAD = 1e-4
"""Of the brightest intensity that is compared: the least noise that is reckoned with."""


@dataclass(frozen=True)
class Pairs:
    """Voxels as they were measured, and as the re-blurred volume has them.

    Parameters
    ----------
    measured, reblurred : ndarray, (n,) float32
    """

    measured: NDArray[np.float32]
    reblurred: NDArray[np.float32]

    @classmethod
    def of(cls, measured: NDArray[np.float32], reblurred: NDArray[np.float32]) -> Pairs:
        """Take voxels of a place, evenly spread, and at most `MOST_PAIRS`."""
        # An odd step that shares no factor with most widths, so that no column is preferred.
        step = max(1, measured.size // MOST_PAIRS) | 1
        return cls(measured.ravel()[::step], reblurred.ravel()[::step])

    def __add__(self, other: Pairs) -> Pairs:
        """Return the pairs of both."""
        return Pairs(
            np.concatenate((self.measured, other.measured)),
            np.concatenate((self.reblurred, other.reblurred)),
        )


def match(pairs: Pairs, noise: NoiseModel, tolerance: float, *, is_integer: bool) -> Terms:
    """Fit gain and offset, and tell the background.

    By least squares, weighted by the noise; voxels that lie far off are left out, and the fit is
    done again. Where too little stands out to tell a gain, it is 1.

    Parameters
    ----------
    pairs : Pairs
    noise : NoiseModel
        Of the measured planes.
    tolerance : float
        See `Terms`.
    is_integer : bool
        Whether intensities are whole numbers, and rounded to them.
    """
    m, p = (np.asarray(v, np.float64) for v in (pairs.measured, pairs.reblurred))
    least = max(
        (_LEAST_SPREAD * float(np.ptp(m))) ** 2, 1 / 12 if is_integer else 0.0, np.finfo(float).tiny
    )
    gain, offset = 1.0, float(np.median(m - p))
    background = offset
    for _ in range(_ROUNDS):
        explained = gain * p + offset
        background = float(np.percentile(explained, _DARK))
        terms = Terms(gain, offset, noise, background, 0.0, least, tolerance)
        light = tolerance * (explained - background)
        sd = np.sqrt(terms.variance(explained.astype(np.float32)) + light**2)
        far = np.abs(m - explained) / sd
        kept = far <= _OUTLYING * max(1.0, _MAD * float(np.median(far)))
        gain, offset = _line(p[kept], m[kept], sd[kept])
    brightest = float(np.percentile(m, 99.9))
    bright = background + _DIM * max(brightest - background, 0.0)
    return Terms(gain, offset, noise, background, bright, least, tolerance)


def _line(p: _Floats, m: _Floats, sd: _Floats) -> tuple[float, float]:
    """Return gain and offset."""
    weights = sd**-2
    total = weights.sum()
    mean_p, mean_m = (float(weights @ values / total) for values in (p, m))
    square = float(weights @ (p - mean_p) ** 2)
    # Its standard error is the root of 1 / square.
    gain = 1.0
    if square > _CERTAIN**-2:
        gain = float(weights @ ((p - mean_p) * (m - mean_m))) / square
    gain = gain if gain > 0 else 1.0
    return gain, mean_m - gain * mean_p
