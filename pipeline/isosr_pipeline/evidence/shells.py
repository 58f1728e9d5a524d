"""Fourier shell correlation of a volume's even voxels with its odd ones, along each axis.

::

    F(f)            the transform of the sub-volume
    E(f), O(f)      those of its even and of its odd rows, the shift by a row undone:
                    E = (F(f) + F(f + ½)) / 2      O = (F(f) - F(f + ½)) / 2
    FSC(k)          Σ Re(E O*) / √(Σ |E|² Σ |O|²)   over the modes of shell k near an axis

Rows are even and odd along y for the resolution along x, along x for that along y, and both for z:
across the axis that is looked at, so that it is told up to the finest frequency of the grid, and
never along z, since planes that are interpolated from one another share their noise.

All this tells signal from noise only while the noise of neighbouring rows is independent. That of
smoothed, deconvolved or restored volumes is not: it correlates as detail does. Whether it does is
seen in the corners of the spectrum, where there is no signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.evidence.transforms import Floats, Transform, modes_of

MOST_SHELLS = 64
"""Shells of a curve, at most."""

THRESHOLD = 1 / 7
"""Correlation below which nothing is taken to be resolved: Rosenthal and Henderson 2003."""

CORRELATED = THRESHOLD
"""Correlation in the corners of the spectrum above which noise of neighbouring rows is alike."""

# Narrow enough that rows left out fold nothing into it.
_CONE_COSINE = math.cos(math.radians(20.0))
# Fewer modes than a dozen lie near an axis in the shells below: their correlation is chance.
_FIRST_SHELL = 2
# As near zero across the rows as modes near an axis are, whose noise they stand for.
_CORNER_ACROSS = 0.125
_SPLITS = ((1, 2), (2,), (1,))
"""Axes across which rows are even and odd, for the resolution along z, y and x."""


def count_shells(edge: int) -> int:
    """Return how many shells the spectrum of a cube has, from 0 to 0.5 cycles per voxel."""
    return min(MOST_SHELLS, edge // 2)


@dataclass
class ShellSums:
    """Sums over sub-volumes, of which the correlation is made.

    Attributes
    ----------
    cross, even, odd : (3, shells) float64
        Along z, y and x: of the products Re(E O*), E E* and O O*. Shell k, from 1 on, is around
        ``k / (2 shells)`` cycles per voxel.
    corners : (3, 3) float64
        The same three products, in rows, along z, y and x, in columns, of the modes in the corners
        of the spectrum, without signal.
    """

    cross: Floats
    even: Floats
    odd: Floats
    corners: Floats

    @classmethod
    def of(cls, transform: Transform) -> ShellSums:
        """Correlate the even with the odd rows of a cube whose edge is even."""
        cells, shells = _cells(transform.modes.shape)
        sums = np.zeros((3, 3, shells + 1))
        opposite = {axis: _opposite(transform.values, axis) for axis in (1, 2)}
        corners = {}
        for split, there in opposite.items():
            chosen, weights = _corners(transform.modes.shape, split)
            products = _products(transform.values.ravel()[chosen], there.ravel()[chosen])
            corners[split] = (weights * products).sum(axis=1)
        for axis, splits in enumerate(_SPLITS):
            chosen, shell, weights = cells[axis]
            here = transform.values.ravel()[chosen]
            for split in splits:
                products = weights * _products(here, opposite[split].ravel()[chosen])
                for index, product in enumerate(products):
                    sums[index, axis] += np.bincount(shell, product, shells + 1)
        by_axis = [np.sum([corners[split] for split in splits], axis=0) for splits in _SPLITS]
        cross, even, odd = sums[:, :, 1:]
        return cls(cross, even, odd, np.stack(by_axis, axis=1))

    def __add__(self, other: ShellSums) -> ShellSums:
        """Add up the sub-volumes of both."""
        return ShellSums(
            self.cross + other.cross,
            self.even + other.even,
            self.odd + other.odd,
            self.corners + other.corners,
        )

    @property
    def frequency(self) -> Floats:
        """Of each shell, (shells,), in cycles per voxel."""
        shells = self.cross.shape[1]
        return np.asarray(np.arange(1, shells + 1) / (2 * shells), np.float64)

    def correlation(self, axis: int) -> Floats:
        """Return the correlation along an axis, (shells,), smoothed by ¼, ½, ¼ over neighbours.

        Shells without power correlate by 0.
        """
        power = np.sqrt(self.even[axis] * self.odd[axis])
        curve = np.divide(self.cross[axis], power, out=np.zeros_like(power), where=power > 0)
        padded = np.pad(curve, 1, mode="edge")
        return np.asarray(padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4, np.float64)

    def noise_correlation(self, axis: int) -> float:
        """Return the correlation where there is no signal, from -1 to 1.

        It is that of modes at ``|f|`` of 0.5 and more, within 1/8 cycle per voxel across the rows
        that are compared for an axis. Near 0 for noise that is independent from voxel to voxel;
        0 without power.
        """
        cross, even, odd = self.corners[:, axis].tolist()
        return float(cross / math.sqrt(even * odd)) if even * odd > 0 else 0.0

    def noise_correlates(self, axis: int) -> bool:
        """Tell whether noise of neighbouring rows is too alike to be told from detail."""
        return self.noise_correlation(axis) > CORRELATED

    def resolved(self, axis: int) -> float | None:
        """Return the highest frequency that is resolved along an axis.

        Returns
        -------
        float or None
            In cycles per voxel: where the correlation first falls below 1/7, by linear
            interpolation. 0.5 where it never does. None where it does from the beginning, or where
            noise correlates, so that it can't be told from detail.
        """
        if self.noise_correlates(axis):
            return None
        curve = self.correlation(axis)
        below = np.flatnonzero(curve[_FIRST_SHELL:] < THRESHOLD)
        if not len(below):
            return 0.5
        first = int(below[0]) + _FIRST_SHELL
        if first == _FIRST_SHELL:
            return None
        share = (curve[first - 1] - THRESHOLD) / (curve[first - 1] - curve[first])
        low, high = self.frequency[first - 1 : first + 1]
        return float(low + share * (high - low))


def _opposite(values: NDArray[np.complex128], axis: int) -> NDArray[np.complex128]:
    """Return F(f + ½) for a transform F(f), with ½ along y or x."""
    if axis == 1:
        return np.roll(values, values.shape[1] // 2, axis=1)
    # Of x only half of the modes are there: F(fx - ½) is the conjugate of F at the mirrored mode.
    mirrored = np.roll(values[::-1, ::-1], (1, 1), (0, 1))
    return np.asarray(mirrored[..., ::-1].conj())


def _products(here: NDArray[np.complex128], there: NDArray[np.complex128]) -> Floats:
    """Return Re(E O*), E E* and O O* of modes F(f) and F(f + ½), (3, modes)."""
    even, odd = (here + there) / 2, (here - there) / 2
    return np.stack([(even * odd.conj()).real, np.abs(even) ** 2, np.abs(odd) ** 2])


@lru_cache(maxsize=4)
def _corners(shape: tuple[int, int, int], split: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the modes without signal, for rows that are even and odd along an axis; weights."""
    modes = modes_of(shape)
    chosen = modes.corners & (np.abs(modes.axes[split]) <= _CORNER_ACROSS)
    weights = np.broadcast_to(modes.weights, chosen.shape)
    return np.flatnonzero(chosen), np.array(weights[chosen])


_Cell = tuple[NDArray[np.intp], NDArray[np.intp], Floats]


@lru_cache(maxsize=2)
def _cells(shape: tuple[int, int, int]) -> tuple[tuple[_Cell, ...], int]:
    """Return the modes near each axis, their shells and weights; and the number of shells."""
    modes = modes_of(shape)
    shells = count_shells(min(shape))
    shell = np.rint(modes.size * 2 * shells).astype(np.intp)
    weights = np.broadcast_to(modes.weights, shell.shape)
    found = []
    for axis in range(3):
        chosen = (shell <= shells) & modes.within(axis, _CONE_COSINE)
        found.append((np.flatnonzero(chosen), shell[chosen], np.array(weights[chosen])))
    return tuple(found), shells
