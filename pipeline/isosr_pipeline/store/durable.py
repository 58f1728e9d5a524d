"""Makes what was written survive a power cut: zarr leaves it to the operating system."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import zarr

from isosr_pipeline.geometry import Box, Zyx


def sync_shards(store: Path, array: zarr.Array[Any], channel: int, box: Box, shard: Zyx) -> None:
    """Wait until the shards of a box, and their names, are on disk.

    Parameters
    ----------
    store : Path
    array : zarr.Array
        A level of the store.
    channel : int
    box : Box
        That was written, whole shards of it.
    shard : Zyx
        In voxels. A shard of fill values alone has no file, and needs none.
    """
    cells = (range(a // n, -(-b // n)) for a, b, n in zip(box.start, box.stop, shard, strict=True))
    for cell in itertools.product(*cells):
        path = store / array.path / array.metadata.encode_chunk_key((channel, *cell))
        if path.exists():
            _sync(path)
            _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
