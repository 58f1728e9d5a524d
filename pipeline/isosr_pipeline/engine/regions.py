"""Regions that are written with the next level: cut so that nothing is read or decoded twice.

::

    level 0                          level 1
    ┌─────┬─────┐ ┐                  ┌─────┐
    │ shard     │ │ piece: read      │shard│   A region is whole shards of both levels. It is read
    ├ ─ ─ ┼ ─ ─ ┤ ┘ at once          └─────┘   piece by piece; each piece is written, counted and
    │     │     │                              averaged while it is in memory.
    └─────┴─────┘   region
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.engine.verifying import written
from isosr_pipeline.geometry import Box, Region, RegionGrid, Zyx, blocks
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.pyramid import Level, downsample, parent_box
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.store.written import Written

_LARGEST_PIECE = 512 * 2**20
"""Bytes; 64 planes of 2048 × 2048 pixels of 16 bits."""

LIBRARIES = 200 * 2**20
"""Bytes that a worker takes before it does anything."""

_ENCODED_AT_ONCE = 2

_AVERAGED_AT_ONCE = Zyx(64, 128, 128)
"""Voxels: what averaging makes of them stays in the processor's cache."""


@dataclass(frozen=True)
class RegionPlan:
    """How a volume is cut to be filled from a source.

    Parameters
    ----------
    region : Zyx
        What one task writes, in voxels: whole shards of level 0, and of level 1 if there is one.
    piece : Zyx
        What is read at once, in voxels: whole shards of level 0.
    levels : int
        How many levels a region writes: level 0, and level 1 too if it is 2.
    """

    region: Zyx
    piece: Zyx
    levels: int

    def memory(self, spec: VolumeSpec) -> int:
        """Return about how many bytes a worker needs for a region, its libraries included."""
        factors = spec.levels[self.levels - 1].factors if self.levels > 1 else None
        piece, region, shard = (
            math.prod(map(min, lengths, spec.shape[1:])) * spec.dtype.itemsize
            for lengths in (self.piece, self.region, spec.shard)
        )
        coarse = region // math.prod(factors) if factors else 0
        encoded = min(piece, _ENCODED_AT_ONCE * shard)
        return LIBRARIES + piece + coarse + encoded

    def read_back(self, spec: VolumeSpec) -> int:
        """Return how many voxels are read of levels from which coarser ones are made."""
        return sum(spec.voxels(level - 1) for level in range(self.levels, len(spec.levels)))

    def grids(self, spec: VolumeSpec) -> dict[int, RegionGrid]:
        """Return the regions of each level that has regions of its own, by the level's number."""
        further = range(self.levels, len(spec.levels))
        return {0: spec.regions(0, self.region), **{i: spec.regions(i) for i in further}}


def plan_regions(spec: VolumeSpec, grain: Zyx) -> RegionPlan:
    """Cut a volume so that what its source decodes at once is decoded once, if memory allows.

    Parameters
    ----------
    spec : VolumeSpec
    grain : Zyx
        What the source decodes at once, in voxels; see `Source`.

    Returns
    -------
    RegionPlan
        Pieces are the shards that hold a grain, or as many as fit into 512 MiB.
    """
    levels = min(2, len(spec.levels))
    factors = spec.levels[levels - 1].factors
    # An odd shard alone would end in the middle of a voxel of level 1.
    units = [math.lcm(s, f) for s, f in zip(spec.shard, factors, strict=True)]
    piece = list(units)
    for axis in (2, 1, 0):
        most = _LARGEST_PIECE // (math.prod(piece) * spec.dtype.itemsize)
        wanted = math.ceil(min(grain[axis], spec.shape[1 + axis]) / units[axis])
        piece[axis] = units[axis] * max(1, min(wanted, most))
    region = (math.lcm(p, f * s) for p, f, s in zip(piece, factors, spec.shard, strict=True))
    return RegionPlan(Zyx(*region), Zyx(*piece), levels)


class RegionWriter:
    """Writes one region piece by piece, and makes its part of level 1 from the pieces.

    Parameters
    ----------
    volume : Volume
    region : Region
        Whole shards of level 0 and, if there is one, of level 1.
    level : Level or None
        Level 1.
    verified : int
        Of so many chunks of a file one is decoded and compared after it was written, 1 for all.
    """

    def __init__(
        self, volume: Volume, region: Region, level: Level | None, *, verified: int = 1
    ) -> None:
        self._volume, self._region, self._level = volume, region, level
        self._verified = verified
        self._histogram = Histogram(volume.dtype)
        self._bytes = 0
        self._files: list[Written] = []
        self._box = _coarser(region.box, level.factors) if level else None
        self._coarse = np.empty(self._box.shape, volume.dtype) if self._box else None

    def add(self, box: Box, data: NDArray[Any], counted: NDArray[np.bool_] | None = None) -> None:
        """Write a piece, and wait until it is on disk and reads back as it was given.

        Parameters
        ----------
        box : Box
            Whole shards of level 0, in the region.
        data : ndarray, (z, y, x)
            Of the volume's dtype.
        counted : ndarray, (z, y) bool, optional
            Rows whose intensities count in the histogram; all of them if it isn't given.

        Raises
        ------
        OSError
            When the file system takes no more, or what it holds is not what was written.
        """
        with self._volume.writing() as shards:
            shards.start(self._region.channel, box, data)
            self._histogram.add(data if counted is None or counted.all() else data[counted])
            self._average(box, data)
        self._bytes += data.nbytes
        self._record(box, data, 0)

    def finish(self) -> dict[str, Any]:
        """Write the region's part of level 1, and return what the ledger keeps of the region.

        Raises
        ------
        OSError
            As `add` does.
        """
        if self._box is not None and self._coarse is not None:
            self._volume.write(self._region.channel, self._box, self._coarse, level=1)
            self._record(self._box, self._coarse, 1)
        return {
            "bytes": self._bytes,
            "files": self._files,
            "channel": self._region.channel,
            "histogram": self._histogram.encode(),
        }

    def _record(self, box: Box, data: NDArray[Any], level: int) -> None:
        channel, verified = self._region.channel, self._verified
        self._files.append(written(self._volume, channel, box, data, level, verified=verified))

    def _average(self, box: Box, data: NDArray[Any]) -> None:
        if self._level is None or self._box is None or self._coarse is None:
            return
        for block in blocks(box, _AVERAGED_AT_ONCE):
            fine = data[block.relative_to(box.start).slices]
            coarse = _coarser(block, self._level.factors).relative_to(self._box.start)
            self._coarse[coarse.slices] = downsample(fine, self._level.factors)


@dataclass
class DownsampleRegion:
    """Makes one region of a level from the level before; runs on a worker.

    Parameters
    ----------
    store : Path
    index : int
        Of the level that is made.
    level : Level
    """

    store: Path
    index: int
    level: Level

    @cached_property
    def _volume(self) -> Volume:
        return Volume(self.store, writable=True)

    def __call__(self, region: Region) -> dict[str, Any]:
        """Make and write the region."""
        volume = self._volume
        z, y, x = volume.arrays[self.index - 1].shape[1:]
        out = np.empty(region.box.shape, volume.dtype)
        # Of whole chunks, so that none is decoded twice.
        chunks = zip(_AVERAGED_AT_ONCE, volume.chunk, strict=True)
        for block in blocks(region.box, Zyx(*(math.ceil(n / c) * c for n, c in chunks))):
            box = parent_box(block, self.level, Zyx(z, y, x))
            fine = volume.read(region.channel, box, self.index - 1)
            out[block.relative_to(region.box.start).slices] = downsample(fine, self.level.factors)
        volume.write(region.channel, region.box, out, self.index)
        files = [written(volume, region.channel, region.box, out, self.index)]
        return {"bytes": out.nbytes, "files": files}


def _coarser(box: Box, factors: Zyx) -> Box:
    """Return the box of the next level that a box is averaged to; it begins on whole voxels."""
    start = (a // f for a, f in zip(box.start, factors, strict=True))
    stop = (math.ceil(b / f) for b, f in zip(box.stop, factors, strict=True))
    return Box(Zyx(*start), Zyx(*stop))
