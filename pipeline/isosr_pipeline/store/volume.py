"""Volumes: OME-Zarr stores that are created first and filled later, region by region."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ContainsArrayError, GroupNotFoundError

from isosr_pipeline.errors import AlignmentError, InputError, MissingInputError, OutputExistsError
from isosr_pipeline.geometry import AXES, Box, RegionGrid, Zyx
from isosr_pipeline.paths import check_creatable, creating, partial_path, reading
from isosr_pipeline.store.durable import sync_shards
from isosr_pipeline.store.intensity import Window, check_dtype, find_window
from isosr_pipeline.store.metadata import (
    ATTRIBUTE,
    StoreAttributes,
    read_ome,
    read_own,
    write_display,
    write_ome,
)
from isosr_pipeline.store.pyramid import Level
from isosr_pipeline.store.spec import VolumeSpec, default_shard

__all__ = [
    "Volume",
    "VolumeSpec",
    "create_volume",
    "default_shard",
    "is_store",
    "remove_store",
    "require_store",
]

# What reading metadata of another form raises.
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError)


class Volume:
    """An OME-Zarr image with axes c, z, y, x, open for reading or filling.

    Parameters
    ----------
    path : Path
        Of the store, a folder.
    writable : bool
        Whether `write` and `update` may be called.

    Raises
    ------
    MissingInputError
        When there is nothing at `path`.
    InputError
        When it is no such image, or of a dtype that volumes can't have.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = Path(path)
        with reading(self.path):
            if not self.path.exists():
                raise MissingInputError(f"{path} does not exist; give an OME-Zarr store")
            if not self.path.is_dir():
                raise InputError(
                    f"{path} is a file, and a store is a folder; make one of it with "
                    "isosr-pipeline convert"
                )
            self._group = self._opened("r+" if writable else "r")
        attributes: dict[str, Any] = self._group.attrs.asdict()
        paths, self.voxel_size, self.origin, labels = read_ome(attributes, str(path))
        self.arrays = [self._array(p) for p in paths]
        self.shape = _four(self.arrays[0].shape)
        self.dtype = check_dtype(self.arrays[0].dtype, str(path))
        self.channels = labels or [f"channel {i}" for i in range(self.shape[0])]
        self.attributes = read_own(attributes, str(path))

    def _opened(self, mode: Literal["r", "r+"]) -> zarr.Group:
        try:
            return zarr.open_group(self.path, mode=mode)
        except (GroupNotFoundError, ContainsArrayError) as error:
            raise InputError(
                f"{self.path} is not an OME-Zarr store; make one with isosr-pipeline convert"
            ) from error
        except _DAMAGED as error:
            raise InputError(
                f"{self.path} has metadata that can't be read ({error}): it was cut short or "
                "altered; copy or make the store again"
            ) from error

    def _array(self, path: str) -> zarr.Array[Any]:
        try:
            with reading(self.path / path):
                array = self._group.get(path)
        except _DAMAGED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path / path} has metadata that can't be read ({error}): it was cut short "
                "or altered; copy or make the store again"
            ) from error
        if not isinstance(array, zarr.Array) or array.ndim != 4:
            raise InputError(
                f"{self.path} has no 4D array {path!r}, which its metadata names as a level; "
                "the store is cut short: make it again"
            )
        return array

    @property
    def chunk(self) -> Zyx:
        """Chunks of level 0 in voxels."""
        return Zyx(*self.arrays[0].chunks[1:])

    def shard(self, level: int = 0) -> Zyx:
        """Shards of a level in voxels; its chunks where it has no shards."""
        array = self.arrays[level]
        return Zyx(*(array.shards or array.chunks)[1:])

    def regions(self, level: int = 0) -> RegionGrid:
        """Return the regions of a level: one a shard."""
        return RegionGrid(_four(self.arrays[level].shape), self.shard(level))

    def read(self, channel: int, box: Box, level: int = 0) -> NDArray[Any]:
        """Read a box that lies in the volume; returns (z, y, x) of the volume's dtype."""
        data: NDArray[Any] = np.asarray(self.arrays[level][(channel, *box.slices)])
        return data

    def write(self, channel: int, box: Box, data: NDArray[Any], level: int = 0) -> None:
        """Write a box of whole shards.

        Parameters
        ----------
        channel : int
        box : Box
            Begins and ends on borders of shards or of the volume.
        data : ndarray, (z, y, x)
            Of the volume's dtype.
        level : int

        Raises
        ------
        AlignmentError
            When `box` covers a part of a shard: a second writer of that shard would lose data.
        """
        array = self.arrays[level]
        for axis, a, b, n, shard in zip(
            AXES, box.start, box.stop, array.shape[1:], self.shard(level), strict=True
        ):
            if a % shard or (b % shard and b != n) or not 0 <= a < b <= n:
                raise AlignmentError(
                    f"{self.path} level {level}, axis {axis}: {a}:{b} does not begin and end on "
                    f"shards of {shard} voxels or the border at {n}; write whole shards only"
                )
        array[(channel, *box.slices)] = data
        sync_shards(self.path, array, channel, box, self.shard(level))

    def window(self, channel: int, percentiles: tuple[float, float]) -> Window:
        """Return a channel's recorded intensity window.

        Raises
        ------
        InputError
            When none was recorded between these percentiles.
        """
        windows = self.attributes.windows if self.attributes else []
        window = find_window(windows[channel], percentiles) if windows else None
        if window is None:
            low, high = percentiles
            raise InputError(
                f"{self.path} has no intensity window of {low:g} to {high:g} % recorded; "
                "make the store with isosr-pipeline convert, or give --window LOW,HIGH"
            )
        return window

    def require_own(self) -> StoreAttributes:
        """Return the program's own attribute.

        Raises
        ------
        InputError
            When another program wrote the store.
        """
        if self.attributes is None:
            raise InputError(
                f"{self.path} was not made by isosr-pipeline, so it can't be resumed; "
                "give another path"
            )
        return self.attributes

    def require_complete(self) -> None:
        """Refuse a store that a step has begun and not finished.

        Raises
        ------
        InputError
            When regions of it are still to be filled.
        """
        if self.attributes is not None and not self.attributes.complete:
            raise InputError(
                f"{self.path} is not complete: finish it first, with the command that made it "
                "and --resume"
            )

    def update(self, attributes: StoreAttributes) -> None:
        """Replace the program's own attribute, and the range in which viewers show channels."""
        self.attributes = attributes
        if attributes.windows:
            ranges = [(w[0].low, w[0].high) for w in attributes.windows]
            write_display(self._group, self.channels, ranges, _limits(self.dtype, ranges))
        self._group.attrs[ATTRIBUTE] = attributes.model_dump(mode="json")


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
        group = zarr.create_group(partial, zarr_format=3)
        for index, level in enumerate(spec.levels):
            _create_array(group, str(index), spec, level)
        write_ome(
            group,
            name=path.name,
            levels=spec.levels,
            voxel_size=spec.voxel_size,
            origin=spec.origin,
        )
        ranges = [_limits(spec.dtype, [])] * len(spec.channels)
        write_display(group, list(spec.channels), ranges, ranges[0])
        group.attrs[ATTRIBUTE] = attributes.model_dump(mode="json")
        if prepare is not None:
            prepare(partial)
        try:
            partial.rename(path)
        except OSError as error:
            raise OutputExistsError(
                f"{path} has been made by another process meanwhile; give another path"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _create_array(group: zarr.Group, name: str, spec: VolumeSpec, level: Level) -> None:
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
        compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        fill_value=0,
        dimension_names=("c", "z", "y", "x"),
    )


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
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _limits(dtype: np.dtype[np.generic], ranges: list[tuple[float, float]]) -> tuple[float, float]:
    if dtype.kind in "ui":
        info = np.iinfo(dtype.name)
        return float(info.min), float(info.max)
    if not ranges:
        return 0.0, 1.0
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    c, z, y, x = shape
    return c, z, y, x
