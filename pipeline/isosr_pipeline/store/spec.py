"""What a new volume is to be: its shape, and how it is cut into chunks and shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, RegionGrid, Zyx
from isosr_pipeline.store.multiscale import voxel_size_problem
from isosr_pipeline.store.pyramid import Level, plan_levels

MAX_CHUNK = 2**31 - 2**20
"""Bytes of a chunk, uncompressed: what Blosc compresses at once."""

MAX_SHARD = 16 * 2**30
"""Bytes of a shard, uncompressed: a worker holds one."""

_ROUNDED_TO = 64
_SHARD_EDGES = (256, 512)
_FEW_SHARDS = 4096


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
        What is one file and one region, in voxels; a multiple of `chunk` on each axis.
    channels : tuple of str
        Labels, one for each channel.
    origin : tuple of 3 floats
        Centre of the first voxel in µm, order z, y, x.

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


def default_shard(shape: tuple[int, int, int, int], chunk: Zyx) -> Zyx:
    """Choose shards that keep both the number of files and the memory of a region small.

    Edges are about 256 voxels, or 512 where a volume would have more than 4096 such shards: a
    terabyte of uint16 is then some 4,000 files.

    Parameters
    ----------
    shape : tuple of 4 ints
        c, z, y, x.
    chunk : Zyx
    """
    for edge in _SHARD_EDGES:
        shard = Zyx(*(max(1, edge // c) * c for c in chunk))
        if len(RegionGrid(shape, shard)) <= _FEW_SHARDS:
            break
    return shard
