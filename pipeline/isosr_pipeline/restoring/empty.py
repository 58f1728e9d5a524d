"""Where a volume shows nothing: looked up in a coarse level of its pyramid, and then confirmed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.seams import Borders
from isosr_pipeline.store.volume import Volume

_CELL = 64
"""Voxels of the isotropic grid along each side; cells begin at multiples of it, so that what is
empty depends on neither blocks nor regions."""

_COARSEST = 16
"""Voxels of the finest level along a side of a voxel that is looked at, at most."""

_REMEMBERED = 4096


class EmptyCells:
    """Tells in which cells of the isotropic grid nothing exceeds a floor.

    A coarse level finds most cells that show something, at next to no cost. Its voxels are
    averages, in which a thin bright structure can vanish: the other cells are looked at as
    measured.

    Parameters
    ----------
    view : IsotropicView
    reader : LevelReader
        Of the finest level of the same volume.
    volume : Volume
    floors : sequence of float
        Of each channel, in the units of the volume.
    """

    def __init__(
        self, view: IsotropicView, reader: LevelReader, volume: Volume, floors: Sequence[float]
    ) -> None:
        self._view, self._reader, self._volume, self._floors = view, reader, volume, floors
        fitting = (i for i in range(len(volume.arrays)) if max(volume.step(i)) <= _COARSEST)
        self._level = max(fitting, default=0)
        # Blocks and regions share cells.
        self._shows_nothing = lru_cache(_REMEMBERED)(self._look)

    def in_box(self, channel: int, box: Box) -> Iterator[Box]:
        """Yield the parts of a box that lie in empty cells.

        Parameters
        ----------
        channel : int
        box : Box
            Of the isotropic grid, in the volume.
        """
        origin = Zyx(*(a // _CELL * _CELL for a in box.start))
        end = Zyx(*(math.ceil(b / _CELL) * _CELL for b in box.stop))
        around = self._coarser(Box(origin, end))
        # Read at once: cells are often smaller than chunks.
        coarse = self._volume.read(channel, around, self._level)
        for cell in blocks(Box(origin, end), Zyx(_CELL, _CELL, _CELL)):
            values = coarse[self._coarser(cell).relative_to(around.start).slices]
            # NaN exceeds every floor.
            if values.max() <= self._floors[channel] and self._shows_nothing(channel, cell):
                start = (max(a, b) for a, b in zip(cell.start, box.start, strict=True))
                stop = (min(a, b) for a, b in zip(cell.stop, box.stop, strict=True))
                yield Box(Zyx(*start), Zyx(*stop))

    def _look(self, channel: int, cell: Box) -> bool:
        """Tell whether nothing in a cell exceeds the floor, as it was measured."""
        measured = self._view.measured(cell.clipped(self._view.shape)).box
        return bool(self._reader.read(channel, measured).max() <= self._floors[channel])

    def _coarser(self, box: Box) -> Box:
        """Return the voxels of the coarse level that show a box, and their neighbours behind."""
        per_voxel = (self._view.planes_per_voxel, 1.0, 1.0)
        scale = [p / s for p, s in zip(per_voxel, self._volume.step(self._level), strict=True)]
        lengths = self._volume.arrays[self._level].shape[1:]
        start = (
            min(math.floor(a * s), n - 1) for a, s, n in zip(box.start, scale, lengths, strict=True)
        )
        stop = (
            min(math.ceil(b * s) + 1, n) for b, s, n in zip(box.stop, scale, lengths, strict=True)
        )
        return Box(Zyx(*start), Zyx(*stop))


def cell_borders(box: Box) -> Borders:
    """Return where cells meet in a box of the isotropic grid, counted from its start."""
    return Borders(
        *(
            np.arange(a // _CELL * _CELL + _CELL, b, _CELL, dtype=np.int64) - a
            for a, b in zip(box.start, box.stop, strict=True)
        )
    )
