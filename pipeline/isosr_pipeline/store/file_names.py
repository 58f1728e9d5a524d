"""Names of the files that hold a box of an array."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from isosr_pipeline.geometry import Box, Zyx


def name_files(channel: int, box: Box, file: Zyx, zarr_format: int) -> str:
    """Return one name for all files of a box, below the folder of its array.

    Parameters
    ----------
    channel : int
    box : Box
    file : Zyx
        What is one file, in voxels.
    zarr_format : {2, 3}

    Returns
    -------
    str
        ``"c/0/3/1:3/0:2"`` is four files, with the indices 1 and 2 along y, 0 and 1 along x.
    """
    spans = []
    for start, stop, length in zip(box.start, box.stop, file, strict=True):
        first, last = start // length, (stop - 1) // length
        spans.append(f"{first}" if first == last else f"{first}:{last + 1}")
    return "/".join([*(["c"] if zarr_format == 3 else []), str(channel), *spans])


def count_files(array: Path) -> int:
    """Return how many files hold chunks or shards of an array.

    Parameters
    ----------
    array : Path
        Its folder.
    """
    # Their names are numbers; those of metadata, and of files that were not finished, are not.
    return sum(name.isdigit() for _, _, names in os.walk(array) for name in names)


def each_file(files: str) -> Iterator[str]:
    """Yield the names that `name_files` put into one."""
    if ":" not in files:
        yield files
        return
    parts = ((part,) if ":" not in part else _indices(part) for part in files.split("/"))
    yield from map("/".join, itertools.product(*parts))


def _indices(span: str) -> Iterator[str]:
    start, stop = span.split(":")
    return map(str, range(int(start), int(stop)))
