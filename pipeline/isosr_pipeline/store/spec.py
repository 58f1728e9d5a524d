"""What a new volume is to be: its shape, and how it is cut into chunks and shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, RegionGrid, Zyx
from isosr_pipeline.store.multiscale import voxel_size_problem
from isosr_pipeline.store.pyramid import Level, plan_levels

MAX_CHUNK = 2**31 - 2**20
"""Bytes of a chunk, uncompressed: what Blosc compresses at once."""

MAX_SHARD = 16 * 2**30
"""Bytes of a shard, uncompressed: a worker holds one."""

SMALL_SHARD = Zyx(64, 256, 1024)
"""Of a volume that comes plane by plane, in voxels, before it is cut to whole chunks."""

Ngff = Literal["0.4", "0.5"]
"""Versions of OME-Zarr that can be written: Zarr v2 without shards, Zarr v3 with them."""

_ROUNDED_TO = 64
_CUBE_EDGES = (256, 512)
_FEW_SHARDS = 4096
_FILES_PER_TERABYTE = 9000
_LARGEST_SLAB = 2**30


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """What a new volume is to be.

    Parameters
    ----------
    shape : tuple of 4 ints
        c, z, y, x.
    dtype : numpy.dtype
    voxel_size : tuple of 3 floats
        In µm, order z, y, x.
    chunk : Zyx
        What is compressed together, in voxels; cut to what holds the volume.
    shard : Zyx
        What is one file, in voxels, a multiple of `chunk` on each axis; in OME-Zarr 0.4, where
        chunks are files, what is written together.
    channels : tuple of str
        Labels, one for each channel.
    origin : tuple of 3 floats
        Centre of the first voxel in µm, order z, y, x.
    ngff : {"0.4", "0.5"}
        Version of OME-Zarr.

    Raises
    ------
    InputError
        When a shard is no whole number of chunks, either is too large, or the voxel size is.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    voxel_size: tuple[float, float, float]
    chunk: Zyx
    shard: Zyx
    channels: tuple[str, ...]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ngff: Ngff = "0.5"

    def __post_init__(self) -> None:
        for axis, chunk, shard in zip(AXES, self.chunk, self.shard, strict=True):
            if chunk < 1 or shard % chunk:
                raise InputError(
                    f"axis {axis}: a shard of {shard} voxels is no whole number of chunks of "
                    f"{chunk}; choose a multiple, such as {max(chunk, shard // chunk * chunk)}"
                )
        if problem := voxel_size_problem(self.voxel_size):
            raise InputError(f"{problem}, or give --voxel-size")
        self._cut_to_volume()
        self._check_bytes("chunk", self.chunk, MAX_CHUNK)
        self._check_bytes("shard", self.shard, MAX_SHARD)

    def _cut_to_volume(self) -> None:
        """Shorten chunks and shards where they are longer than the volume, rounded up."""
        held = [-(-n // _ROUNDED_TO) * _ROUNDED_TO for n in self.shape[1:]]
        chunk = Zyx(*(min(c, h) for c, h in zip(self.chunk, held, strict=True)))
        needed = (-(-n // c) * c for n, c in zip(self.shape[1:], chunk, strict=True))
        # Where a chunk was shortened, it alone holds the axis.
        shard = (
            n if c < asked else s
            for n, c, asked, s in zip(needed, chunk, self.chunk, self.shard, strict=True)
        )
        object.__setattr__(self, "shard", Zyx(*shard))
        object.__setattr__(self, "chunk", chunk)

    def _check_bytes(self, name: str, lengths: Zyx, limit: int) -> None:
        z, y, x = (
            min(n, -(-extent // c) * c)
            for n, extent, c in zip(lengths, self.shape[1:], self.chunk, strict=True)
        )
        size = z * y * x * self.dtype.itemsize
        if size > limit:
            raise InputError(
                f"a {name} of {z} × {y} × {x} {self.dtype.name} voxels (z y x) takes "
                f"{size / 2**30:.1f} GiB, and may take {limit / 2**30:.1f} GiB; give a smaller "
                f"--{name}"
            )

    @property
    def levels(self) -> list[Level]:
        """The pyramid, level 0 first."""
        return plan_levels(Zyx(*self.shape[1:]), self.voxel_size)

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Version of Zarr."""
        return 3 if self.ngff == "0.5" else 2

    def regions(self, level: int = 0, region: Zyx | None = None) -> RegionGrid:
        """Return the regions of a level.

        Parameters
        ----------
        level : int
        region : Zyx, optional
            Shape of a region in voxels, whole shards; a shard if it isn't given.
        """
        return RegionGrid((self.shape[0], *self.levels[level].shape), region or self.shard)

    def voxels(self, level: int = 0) -> int:
        """Return the number of voxels of a level, in all channels."""
        return self.shape[0] * math.prod(self.levels[level].shape)

    @property
    def bytes(self) -> int:
        """Of all levels, uncompressed."""
        return sum(map(self.voxels, range(len(self.levels)))) * self.dtype.itemsize

    @property
    def files(self) -> int:
        """How many files with voxels there are in all levels, at most."""
        file = self.shard if self.ngff == "0.5" else self.chunk
        return _count(self.shape[0], self.levels, file)


def _count(channels: int, levels: list[Level], box: Zyx) -> int:
    """Return how many boxes of a shape cover all levels."""
    return sum(len(RegionGrid((channels, *level.shape), box)) for level in levels)


def whole_chunks(lengths: Zyx, chunk: Zyx) -> Zyx:
    """Return lengths in voxels, cut to whole chunks; one chunk where that is longer."""
    return Zyx(*(max(1, n // c) * c for n, c in zip(lengths, chunk, strict=True)))


def cubic_shard(shape: tuple[int, int, int, int], chunk: Zyx) -> Zyx:
    """Choose shards for volumes that are computed block by block, with a halo.

    Edges are about 256 voxels, or 512 where a volume would have more than 4096 such shards: a
    terabyte of uint16 is then some 4,000 files.

    Parameters
    ----------
    shape : tuple of 4 ints
        c, z, y, x.
    chunk : Zyx
    """
    for edge in _CUBE_EDGES:
        shard = whole_chunks(Zyx(edge, edge, edge), chunk)
        if len(RegionGrid(shape, shard)) <= _FEW_SHARDS:
            break
    return shard


def slab_shard(
    shape: tuple[int, int, int, int],
    voxel_size: tuple[float, float, float],
    chunk: Zyx,
    itemsize: int,
) -> Zyx:
    """Choose shards for volumes that come plane by plane.

    They are as flat as chunks, so that few planes must be held, and grow with the volume, first
    along x: where rows of a plane are compressed together, they are best read whole.

    Parameters
    ----------
    shape : tuple of 4 ints
        c, z, y, x.
    voxel_size : tuple of 3 floats
        In µm, order z, y, x; with the shape, it decides the pyramid.
    chunk : Zyx
    itemsize : int
        Bytes of a voxel.

    Returns
    -------
    Zyx
        About 64, 256, 1024 voxels, or so much more that all levels together are no more than 4096
        files, or 9000 files a terabyte.
    """
    levels = plan_levels(Zyx(*shape[1:]), voxel_size)
    few = max(_FEW_SHARDS, math.prod(shape) * itemsize * _FILES_PER_TERABYTE // 10**12)
    held = [math.ceil(n / c) * c for n, c in zip(shape[1:], chunk, strict=True)]
    lengths = list(whole_chunks(SMALL_SHARD, chunk))
    while _count(shape[0], levels, Zyx(*lengths)) > few:
        axis = next((i for i in (2, 1, 0) if lengths[i] < held[i]), None)
        if axis is None:
            break
        grown = list(lengths)
        grown[axis] = min(2 * lengths[axis], held[axis])
        if math.prod(grown) * itemsize > _LARGEST_SLAB:
            break
        lengths = grown
    # Of equal lengths: a last shard that is nearly empty is a file too.
    counts = (math.ceil(n / length) for n, length in zip(held, lengths, strict=True))
    z, y, x = (
        min(length, math.ceil(n / count / c) * c)
        for n, count, length, c in zip(held, counts, lengths, chunk, strict=True)
    )
    return Zyx(z, y, x)
