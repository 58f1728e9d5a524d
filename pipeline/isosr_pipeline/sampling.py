"""Where crops are taken from: mostly where there is something to see.

Which parts of a volume those are is read off a coarse level of its pyramid, never off level 0. The
places at which crops may start are cut into cells; a cell is drawn in proportion to how much
foreground its crops hold, and then any start in it alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Zyx

UNIFORM = 0.1
"""Share of the crops that are drawn from everywhere: networks must keep the background too."""

MOST_CELLS = 1 << 20
_CELLS_PER_CROP = 4
_SAMPLES = 8
_SLAB = 1 << 20
_FINEST_SHARE = 1 << 24
_LARGEST_SUM = 1 << 62


class Place(NamedTuple):
    """A crop to read: numbers of the store and the channel, and its first voxel."""

    store: int
    channel: int
    start: Zyx


@dataclass(frozen=True)
class Cells:
    """The places at which crops of a volume may start, cut into cells.

    Parameters
    ----------
    starts : Zyx
        How many there are along each axis, from 0 on.
    cell : Zyx
        Starts in a cell; the last along an axis may have fewer.
    """

    starts: Zyx
    cell: Zyx

    @classmethod
    def of(cls, shape: Zyx, crop: Zyx, most: int = MOST_CELLS) -> Cells:
        """Cut into cells a quarter of a crop long, or longer where there would be too many.

        Parameters
        ----------
        shape : Zyx
            Of the isotropic grid, in voxels.
        crop : Zyx
            In voxels; no longer than `shape`.
        most : int
            Cells.
        """
        starts = Zyx(*(n - c + 1 for n, c in zip(shape, crop, strict=True)))
        cells = cls(starts, Zyx(*(max(1, c // _CELLS_PER_CROP) for c in crop)))
        while len(cells) > most:
            cells = cls(starts, Zyx(*(2 * length for length in cells.cell)))
        return cells

    @property
    def counts(self) -> Zyx:
        """Cells along each axis."""
        return Zyx(*(-(-n // length) for n, length in zip(self.starts, self.cell, strict=True)))

    def __len__(self) -> int:
        z, y, x = self.counts
        return z * y * x

    def bounds(self, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first start of each cell along an axis, and the one after its last."""
        first = np.arange(self.counts[axis], dtype=np.int64) * self.cell[axis]
        return first, np.minimum(first + self.cell[axis], self.starts[axis])

    def sizes(self) -> NDArray[np.int64]:
        """Return how many starts each cell has, (z, y, x)."""
        z, y, x = (np.subtract(*self.bounds(axis)[::-1]) for axis in range(3))
        return np.asarray(z[:, None, None] * y[:, None] * x, np.int64)

    def draw(self, rng: np.random.Generator, cell: int) -> Zyx:
        """Draw a start of a cell, all alike."""
        indices = np.unravel_index(cell, self.counts)
        edges = (
            (int(index) * length, min((int(index) + 1) * length, n))
            for index, length, n in zip(indices, self.cell, self.starts, strict=True)
        )
        return Zyx(*(int(rng.integers(first, stop)) for first, stop in edges))

    def anywhere(self, rng: np.random.Generator) -> Zyx:
        """Draw any start, all alike."""
        return Zyx(*(int(rng.integers(n)) for n in self.starts))


class Grid(NamedTuple):
    """Where the voxels of a coarse level lie on an axis of the isotropic grid.

    Parameters
    ----------
    planes_per_voxel : float
        Voxels of level 0 in a voxel of the isotropic grid.
    step : float
        Voxels of level 0 in a voxel of the coarse level.
    first : int
        Where starts count from, in voxels of the isotropic grid.
    """

    planes_per_voxel: float
    step: float
    first: int = 0

    def edges(
        self, start: NDArray[np.float64], length: int, available: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where crops begin and end, in voxels of the coarse level.

        Parameters
        ----------
        start : ndarray, any shape
            First voxels of crops, from `first` on.
        length : int
            Of a crop, in voxels of the isotropic grid.
        available : int
            Voxels of the coarse level.
        """
        # The centres of the first voxels of level 0 and of the isotropic grid coincide.
        border = 0.5 - self.planes_per_voxel / 2
        start = start + self.first
        low = (start * self.planes_per_voxel + border) / self.step
        high = ((start + length) * self.planes_per_voxel + border) / self.step
        return np.clip(low, 0, available), np.clip(high, 0, available)


def shares(
    foreground: NDArray[np.bool_], cells: Cells, crop: Zyx, grids: Sequence[Grid]
) -> NDArray[np.float64]:
    """Return the share of foreground in the crops of each cell.

    Parameters
    ----------
    foreground : ndarray, (z, y, x) bool
        A coarse level.
    cells : Cells
    crop : Zyx
        In voxels of the isotropic grid.
    grids : sequence of 3 Grid
        For z, y and x.

    Returns
    -------
    ndarray, (z, y, x) float64
        Between 0 and 1, the mean over up to 8 evenly spaced places along each axis of
        a cell.
    """
    edges = []
    for axis, grid in enumerate(grids):
        first, stop = cells.bounds(axis)
        samples = np.linspace(first, stop - 1, min(_SAMPLES, cells.cell[axis]))
        edges.append(grid.edges(samples, crop[axis], foreground.shape[axis]))
    planes = max(1, _SLAB // (foreground.shape[1] * foreground.shape[2]))
    slabs = [
        _averaged(_averaged(foreground[z : z + planes], 2, *edges[2]), 1, *edges[1])
        for z in range(0, len(foreground), planes)
    ]
    return _averaged(np.concatenate(slabs), 0, *edges[0])


def snapped(start: float, length: int, own: int) -> int:
    """Return the nearest of evenly spaced starts, from one border of an axis to the other.

    Parameters
    ----------
    start : float
        In voxels.
    length : int
        Of the axis.
    own : int
        Of what starts there; half of it or more lies between neighbours.
    """
    room = length - own
    steps = int(2 * room / own)
    if not steps:
        return room // 2
    return round(min(round(start / room * steps), steps) / steps * room)


def _averaged(
    values: NDArray[np.generic], axis: int, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average along an axis between edges (samples, cells), and over the samples."""
    moved = np.moveaxis(values, axis, -1)
    integral = np.zeros((*moved.shape[:-1], moved.shape[-1] + 1))
    np.cumsum(moved, axis=-1, out=integral[..., 1:])

    def up_to(edge: NDArray[np.float64]) -> NDArray[np.float64]:
        below = np.minimum(edge.astype(np.intp), moved.shape[-1] - 1)
        part = edge - below
        return np.asarray(integral[..., below] * (1 - part) + integral[..., below + 1] * part)

    means = sum((up_to(b) - up_to(a)) / (b - a) for a, b in zip(low, high, strict=True))
    return np.moveaxis(np.asarray(means) / len(low), -1, axis)


@dataclass(frozen=True)
class Sampler:
    """Draws places in volumes and their channels.

    Channels of a volume are drawn alike, since one that shows little is not there for nothing.

    Parameters
    ----------
    cells : sequence of Cells
        One for each volume.
    channels : sequence of int
        How many each volume has.
    scale : int
        Weight of a start whose crop is all foreground.
    sums : sequence of sequence of ndarray, or None
        For each volume and channel the cumulative weights of the cells, int64 so that a draw does
        not hang on rounding; None: all places are drawn alike.
    """

    cells: Sequence[Cells]
    channels: Sequence[int]
    scale: int = 1
    sums: Sequence[Sequence[NDArray[np.int64]]] | None = None

    @classmethod
    def weighted(
        cls, cells: Sequence[Cells], found: Sequence[Sequence[NDArray[np.float64]]]
    ) -> Sampler:
        """Weigh cells by the foreground in their crops.

        Parameters
        ----------
        cells : sequence of Cells
            One for each volume.
        found : sequence of sequence of ndarray, (z, y, x) float64
            For each volume and channel, what `shares` returned.
        """
        most = max(math.prod(one.starts) for one in cells)
        scale = min(_FINEST_SHARE, _LARGEST_SUM // most)
        sums = [
            [np.cumsum(np.rint(s * scale).astype(np.int64) * one.sizes()) for s in channels]
            for one, channels in zip(cells, found, strict=True)
        ]
        return cls(cells, [len(channels) for channels in found], scale, sums)

    @property
    def share(self) -> list[float]:
        """Share of foreground in the crops of each volume, as weighed; 1 if all are alike."""
        return [
            found / volume for found, volume in zip(self._foreground, self._volumes, strict=True)
        ]

    def draw(self, rng: np.random.Generator, uniform: float = UNIFORM) -> Place:
        """Draw a place, from everywhere in this share of the cases."""
        everywhere = rng.random() < uniform or not any(self._foreground)
        weights = self._volumes if everywhere else self._foreground
        store = int(rng.choice(len(weights), p=np.divide(weights, sum(weights))))
        channel = int(rng.integers(self.channels[store]))
        cells = self.cells[store]
        total = int(self.sums[store][channel][-1]) if self.sums else 0
        if everywhere or not self.sums or not total:
            return Place(store, channel, cells.anywhere(rng))
        number = int(rng.integers(total))
        cell = int(np.searchsorted(self.sums[store][channel], number, side="right"))
        return Place(store, channel, cells.draw(rng, cell))

    @property
    def _volumes(self) -> list[float]:
        return [float(math.prod(cells.starts)) for cells in self.cells]

    @property
    def _foreground(self) -> list[float]:
        if self.sums is None:
            return self._volumes
        return [
            sum(int(one[-1]) for one in channels) / len(channels) / self.scale
            for channels in self.sums
        ]
