"""How far measured planes lie from what a restored volume explains, in units of their noise.

A cell is judged twice. The *sum* of its residuals finds light that was added or lost; the sum of
their *squares* finds what lies in the wrong place. The larger of both counts, with the sign of the
sum: above 0 the restored volume has more light than was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.noise import NoiseModel
from isosr_pipeline.geometry import Zyx

Floats = NDArray[np.float64]

_NOISE_DOUBT = 0.1
"""Standard error of the noise model's variances, as a share of them."""

_BORDER = 0.02
"""Share of light from beyond the volume above which only sums are judged."""

_UNJUDGED = 0.05
"""The same above which a cell is not judged: what lies beyond might explain it."""

_AT_THE_BORDER = 3.0
"""How many times as bright as a cell may be what lies beyond the volume's border."""


@dataclass(frozen=True)
class Terms:
    """What decides how residuals are judged, of one channel, in stored intensities.

    Parameters
    ----------
    gain, offset : float
        ``gain * reblurred + offset`` is what is compared with the measured planes.
    noise : NoiseModel
        Of the measured planes.
    background : float
        What is seen where there is nothing.
    bright : float
        Cells whose mean, measured or explained, reaches it show a signal.
    least : float
        Smallest variance of a voxel.
    tolerance : float
        Share of the light above the background that may be missing or too much.
    """

    gain: float
    offset: float
    noise: NoiseModel
    background: float
    bright: float
    least: float
    tolerance: float

    def variance(self, intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the variance of noise at intensities; below the background, as there."""
        level = np.maximum(intensity, np.float32(self.background))
        found = np.float32(self.noise.gain) * level + np.float32(self.noise.floor)
        return np.asarray(np.maximum(found, np.float32(self.least)), np.float32)


class Judged(NamedTuple):
    """What is known of the cells of a block.

    Parameters
    ----------
    score : ndarray, (z, y, x) float32
        In standard deviations; 0 where a cell is not judged.
    judged : ndarray, likewise bool
        Whether planes lie in a cell, and it is not at the border of the volume.
    signal : ndarray, likewise bool
        Whether a cell is judged and shows more than background.
    """

    score: NDArray[np.float32]
    judged: NDArray[np.bool_]
    signal: NDArray[np.bool_]


@dataclass(frozen=True)
class CellSums:
    """Adds up voxels of measured planes cell by cell.

    Parameters
    ----------
    rows : ndarray, (planes,) intp
        The cell along z in which each plane lies; rising.
    cells : int
        Cells along z.
    cell : Zyx
        In voxels; along y and x, the first cell begins with the first voxel.
    """

    rows: NDArray[np.intp]
    cells: int
    cell: Zyx

    def __call__(self, voxels: NDArray[np.float32]) -> Floats:
        """Return sums; (planes, y, x) becomes (z, y, x) in cells."""
        _, height, width = voxels.shape
        sums = np.add.reduceat(voxels, range(0, width, self.cell.x), axis=2, dtype=np.float64)
        sums = np.add.reduceat(sums, range(0, height, self.cell.y), axis=1)
        out = np.zeros((self.cells, *sums.shape[1:]))
        np.add.at(out, self.rows, sums)
        return out


def judge(
    measured: NDArray[np.float32],
    explained: NDArray[np.float32],
    beyond: NDArray[np.float32],
    terms: Terms,
    sums: CellSums,
) -> Judged:
    """Judge the cells of a block.

    Parameters
    ----------
    measured, explained : ndarray, (planes, y, x) float32
        Intensities as stored, and what the restored volume makes of them.
    beyond : ndarray, (planes, y, x) float32
        Share of the light that came from beyond the restored volume, where it is not known.
    terms : Terms
    sums : CellSums
    """
    residual = explained - measured
    variance = terms.variance(explained)
    light = np.abs(explained - np.float32(terms.background))
    doubt = np.float32(terms.tolerance) * light
    count = sums(np.ones_like(measured))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [sums(voxels) / count for voxels in (measured, explained)]
        share = sums(beyond) / count
        brightest = np.maximum(*(np.abs(mean - terms.background) for mean in means))
        total = sums(residual)
        unknown = _AT_THE_BORDER * share * count * brightest
        spread = np.sqrt(sums(variance) + (sums(doubt) + unknown) ** 2)
        by_sum = total / spread
        whole = variance + doubt**2
        squares = sums(residual**2 / whole) / count
        by_squares = _as_normal(squares, count, sums(terms.noise.gain**2 / whole))
        by_squares[share > _BORDER] = 0.0
        score = np.where(np.abs(by_sum) >= by_squares, by_sum, np.copysign(by_squares, total))
        signal = np.maximum(*means) >= terms.bright
        judged = (count > 0) & (share <= _UNJUDGED)
    return Judged(np.where(judged, score, 0.0).astype(np.float32), judged, judged & signal)


def _as_normal(squares: Floats, count: Floats, kurtosis: Floats) -> Floats:
    """Bring means of squared residuals, 1 as expected, to a standard normal scale.

    Those of Gaussian noise follow a chi-squared distribution, brought here by Wilson and Hilferty's
    cube root. Photons scatter more, by their excess kurtosis, which is the gain over the variance,
    and the noise itself is known to a share only: both leave fewer degrees of freedom.

    Parameters
    ----------
    squares : ndarray, (z, y, x)
    count : ndarray, likewise
        Voxels of each cell.
    kurtosis : ndarray, likewise
        Their sum of excess kurtoses.
    """
    freedom = 2.0 / (2.0 / count + kurtosis / count**2 + _NOISE_DOUBT**2)
    step = 2.0 / (9.0 * freedom)
    return np.asarray((np.cbrt(squares) - (1.0 - step)) / np.sqrt(step), np.float64)
