"""Finds out whether the disk holds what was written to it, before it is recorded as done."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.store.written import Written, read_back


def written(
    volume: Volume, channel: int, box: Box, data: NDArray[Any], level: int = 0, *, verified: int = 1
) -> Written:
    """Return what is on disk of a box that was just written, and see that it is what it should be.

    What is read comes from the operating system, which may have it in memory still.

    Parameters
    ----------
    volume : Volume
    channel : int
    box : Box
        Whole shards.
    data : ndarray, (z, y, x)
        What was written.
    level : int
    verified : int
        Of so many chunks of a file one is decoded and compared, of each file at least one.

    Raises
    ------
    OSError
        When a file is missing, can't be read or decoded, or holds something else.
    """
    # First, so that what is altered while it is compared is not as it was recorded.
    found = read_back(volume, channel, box, level)
    if not found.size and data.any():
        raise OSError(f"{volume.path}: {found.files} was written and is not there")
    try:
        reader = LevelReader(volume, level)
        for part in _parts(volume, box, level, verified):
            if not _equal(reader.read(channel, part), data[part.relative_to(box.start).slices]):
                raise OSError(f"{volume.path}: {found.files} does not hold what was written")
    except InputError as error:
        # Not the source's: the same data written once more may be in order.
        raise OSError(
            f"{volume.path}: {found.files} was written and is damaged: {error}"
        ) from error
    return found


def _parts(volume: Volume, box: Box, level: int, verified: int) -> Iterator[Box]:
    """Yield what is decoded at once: little, as the data take the memory already."""
    chunk, shard = Zyx(*volume.arrays[level].chunks[1:]), volume.shard(level)
    if verified == 1:
        yield from blocks(box, Zyx(chunk.z, chunk.y, shard.x))
        return
    for file in blocks(box, shard):
        chunks = list(blocks(file, chunk))
        # Not the same ones in all files.
        first = zlib.crc32(repr(file.start).encode()) % min(verified, len(chunks))
        yield from chunks[first::verified]


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return np.array_equal(found, expected) or (
        expected.dtype.kind == "f" and np.array_equal(found, expected, equal_nan=True)
    )
