"""What was written of a box: its files' size, time and checksum, and whether they are so still."""

from __future__ import annotations

from os import stat
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from isosr_pipeline.geometry import Box
from isosr_pipeline.store.file_names import each_file, name_files
from isosr_pipeline.store.volume import Volume

_READ_AT_ONCE = 2**22
_MISSING = b"missing"


class Written(NamedTuple):
    """The files of a box of an array, as they are on disk.

    A file that holds nothing but the fill value is not written; that it is missing is right then,
    and part of what is compared.

    Parameters
    ----------
    files : str
        Below the store; see `name_files`.
    size : int
        Bytes of all of them.
    modified : int
        When the last of them was modified, in nanoseconds of Unix time; 0 if there is none.
    checksum : int
        CRC32C of all their bytes, one after the other.
    """

    files: str
    size: int
    modified: int
    checksum: int


def read_back(volume: Volume, channel: int, box: Box, level: int = 0) -> Written:
    """Read the files of a box that was written, and return what they are.

    Parameters
    ----------
    volume : Volume
    channel : int
    box : Box
        Whole shards, or chunks where files are chunks.
    level : int

    Raises
    ------
    OSError
        When a file can't be read.
    """
    array = volume.arrays[level]
    names = name_files(channel, box, volume.shard(level), array.metadata.zarr_format)
    files = f"{array.path}/{names}"
    size, modified = _measure(str(volume.path), files)
    return Written(files, size, modified, _checksum(volume.path, files))


def is_unchanged(store: Path, written: Written) -> bool:
    """Tell whether the files of a box are what was written; they are read only if need be.

    Parameters
    ----------
    store : Path
    written : Written
    """
    size, modified = _measure(str(store), written.files)
    if size != written.size:
        return False
    if modified == written.modified:
        return True
    try:
        return _checksum(store, written.files) == written.checksum
    except OSError:
        return False


def _measure(store: str, files: str) -> tuple[int, int]:
    """Return the bytes of files, and when the last one was modified."""
    size = modified = 0
    for name in each_file(files):
        try:
            # Of a million files, making paths would take longer than looking at them.
            found = stat(f"{store}/{name}")  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            continue
        size += found.st_size
        modified = max(modified, found.st_mtime_ns)
    return size, modified


def _checksum(store: Path, files: str) -> int:
    crc = 0
    for name in each_file(files):
        try:
            with (store / name).open("rb", buffering=0) as file:
                while part := file.read(_READ_AT_ONCE):
                    crc = google_crc32c.extend(crc, part)
        except (FileNotFoundError, NotADirectoryError):
            crc = google_crc32c.extend(crc, _MISSING)
    return crc
