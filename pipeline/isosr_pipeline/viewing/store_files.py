"""The files of a store that may be read by others: those that its metadata names, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import zarr

from isosr_pipeline.errors import InputError
from isosr_pipeline.store.volume import Volume

_METADATA = {2: (".zattrs", ".zgroup"), 3: ("zarr.json",)}
_ARRAY_METADATA = {2: (".zarray", ".zattrs"), 3: ("zarr.json",)}
_INDEX = re.compile(r"\d{1,15}")


class StoreFiles:
    """Finds the files of an OME-Zarr volume by their names in the store.

    A name is found only if it is the very one that the metadata gives to a chunk or a shard of a
    level, or one of the metadata itself: nothing is looked up that could lead elsewhere.

    Parameters
    ----------
    volume : Volume

    Raises
    ------
    InputError
        When a level is a link that leads out of the store.
    """

    def __init__(self, volume: Volume) -> None:
        self._path = volume.path
        self._root = volume.path.resolve()
        self._arrays = {array.path: array for array in volume.arrays}
        format_ = volume.arrays[0].metadata.zarr_format
        self._metadata = set(_METADATA[format_])
        for path in self._arrays:
            self._metadata |= {f"{path}/{name}" for name in _ARRAY_METADATA[format_]}
            if not self._is_inside(self._path / path):
                raise InputError(
                    f"{self._path / path} is a link that leads out of the store, and only what "
                    "is in a store is shown; put the level's folder in its place"
                )

    def find(self, name: str) -> Path | None:
        """Return the path of a file, which need not be there, or None for any other name.

        Parameters
        ----------
        name : str
            Relative to the store, such as ``0/c/0/1/2/3``.
        """
        if name not in self._metadata and not self._is_chunk(name):
            return None
        path = self._path / name
        return path if self._is_inside(path) else None

    def _is_chunk(self, name: str) -> bool:
        return any(
            name == chunk_name(array, name.removeprefix(f"{path}/"))
            for path, array in self._arrays.items()
            if name.startswith(f"{path}/")
        )

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._root)


def chunk_name(array: zarr.Array[Any], key: str) -> str | None:
    """Return the name in the store of the file that a key means, or None if there is none.

    Parameters
    ----------
    array : zarr.Array
        A level.
    key : str
        Relative to the level; whatever else it holds, its numbers are taken for an index.
    """
    cell = [int(number) for number in _INDEX.findall(key)]
    stored = array.shards or array.chunks
    grid = [-(-length // step) for length, step in zip(array.shape, stored, strict=True)]
    if len(cell) != len(grid) or any(i >= n for i, n in zip(cell, grid, strict=True)):
        return None
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(cell))}"
