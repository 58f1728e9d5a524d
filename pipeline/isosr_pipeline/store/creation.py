"""Stores are created with all their metadata before the first voxel, and removed with care."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from isosr_pipeline.errors import OutputExistsError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.paths import check_creatable, creating, find_partial, partial_path, sync
from isosr_pipeline.store.metadata import (
    ATTRIBUTE,
    AXES,
    StoreAttributes,
    display_limits,
    write_display,
    write_ome,
)
from isosr_pipeline.store.pyramid import Level
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume

_CODEC: Final = "zstd"
_LEVEL = 1
"""With bit shuffling: docs/convert.md says what was measured."""

_MARKS = ("zarr.json", ".zgroup", ".zarray")
_METADATA = (*_MARKS, ".zattrs")


def create_volume(
    path: Path,
    spec: VolumeSpec,
    attributes: StoreAttributes,
    prepare: Callable[[Path], None] | None = None,
) -> Volume:
    """Create a store with all its metadata and empty arrays, at once or not at all.

    Parameters
    ----------
    path : Path
        Must not exist; its parent folders are made.
    spec : VolumeSpec
    attributes : StoreAttributes
    prepare : callable, optional
        Called with the store's folder before it is there under its name.

    Raises
    ------
    OutputExistsError
        When something is at `path`.
    OutputPathError
        When the system refuses to create it.
    """
    check_creatable(path)
    if path.exists():
        raise OutputExistsError(f"{path} exists; give another path")
    with creating(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path, spec, attributes, prepare)
    return Volume(path, writable=True)


def _create(
    path: Path,
    spec: VolumeSpec,
    attributes: StoreAttributes,
    prepare: Callable[[Path], None] | None,
) -> None:
    partial = partial_path(path)
    try:
        group = zarr.create_group(partial, zarr_format=spec.zarr_format)
        create = _create_sharded if spec.zarr_format == 3 else _create_chunked
        for index, level in enumerate(spec.levels):
            create(group, str(index), spec, level)
        write_ome(
            group,
            ngff=spec.ngff,
            name=path.name,
            levels=spec.levels,
            voxel_size=spec.voxel_size,
            origin=spec.origin,
        )
        ranges = [display_limits(spec.dtype, [])] * len(spec.channels)
        write_display(group, list(spec.channels), ranges, ranges[0])
        group.attrs[ATTRIBUTE] = attributes.model_dump(mode="json")
        if prepare is not None:
            prepare(partial)
        sync_metadata(partial)
        for index in range(len(spec.levels)):
            sync_metadata(partial / str(index))
        try:
            partial.rename(path)
        except OSError as error:
            raise OutputExistsError(
                f"{path} has been made by another process meanwhile; give another path"
            ) from error
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _create_sharded(group: zarr.Group, name: str, spec: VolumeSpec, level: Level) -> None:
    # A level smaller than a shard gets one shard of just as many chunks as it needs.
    shard = Zyx(
        *(
            min(s, math.ceil(n / c) * c)
            for s, n, c in zip(spec.shard, level.shape, spec.chunk, strict=True)
        )
    )
    group.create_array(
        name,
        shape=(spec.shape[0], *level.shape),
        dtype=spec.dtype,
        chunks=(1, *spec.chunk),
        shards=(1, *shard),
        compressors=[BloscCodec(cname=_CODEC, clevel=_LEVEL, shuffle="bitshuffle")],
        fill_value=0,
        dimension_names=AXES,
    )


def _create_chunked(group: zarr.Group, name: str, spec: VolumeSpec, level: Level) -> None:
    group.create_array(
        name,
        shape=(spec.shape[0], *level.shape),
        dtype=spec.dtype,
        chunks=(1, *spec.chunk),
        compressors=[Blosc(cname=_CODEC, clevel=_LEVEL, shuffle=Blosc.BITSHUFFLE)],
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def sync_metadata(folder: Path) -> None:
    """Wait until the metadata of a group or an array are on disk."""
    for name in _METADATA:
        if (folder / name).is_file():
            sync(folder / name)
    sync(folder)


def require_store(path: Path) -> None:
    """Refuse what must not be removed as a store.

    Raises
    ------
    OutputExistsError
        When `path` is not a folder that holds a Zarr store.
    """
    if path.is_symlink():
        raise OutputExistsError(
            f"{path} is a symbolic link, so what it points to is not overwritten; give the path "
            f"it points to, {path.resolve()}, or remove the link"
        )
    if not path.is_dir() or not is_store(path):
        raise OutputExistsError(
            f"{path} exists and is not a Zarr store, so it is not overwritten; give another path"
        )


def remove_store(path: Path) -> None:
    """Remove a Zarr store if there is one, and nothing else; see `require_store`."""
    if not path.exists():
        return
    require_store(path)
    # Renamed first: a removal that is interrupted leaves no half store under the user's name.
    doomed = partial_path(path, "removed")
    with creating(path):
        path.rename(doomed)
        shutil.rmtree(doomed)


def is_store(path: Path) -> bool:
    """Tell whether a path is a folder that holds a Zarr group or array."""
    return any((path / name).is_file() for name in _MARKS)


def remove_leftovers(store: Path) -> None:
    """Remove what killed processes left behind in a store and beside it.

    Parameters
    ----------
    store : Path
        Its lock is held, so that no other run fills it.
    """
    for folder, _, names in os.walk(store):
        for name in names:
            # The names of zarr and of tensorstore for files that are not yet whole.
            if name.endswith((".partial", ".__lock")):
                Path(folder, name).unlink(missing_ok=True)
    for beside in find_partial(store):
        shutil.rmtree(beside, ignore_errors=True)
