"""Volumes: OME-Zarr stores that are created first and filled later, region by region."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ContainsArrayError, GroupNotFoundError

from isosr_pipeline.errors import BusyError, InputError, MissingInputError
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.paths import reading
from isosr_pipeline.store.file_names import count_files
from isosr_pipeline.store.intensity import Window, check_dtype, find_window
from isosr_pipeline.store.metadata import (
    ATTRIBUTE,
    StoreAttributes,
    display_limits,
    read_display,
    read_ome,
    read_own,
    write_display,
)
from isosr_pipeline.store.multiscale import read_multiscale
from isosr_pipeline.store.shards import ShardWriter, writing
from isosr_pipeline.store.spec import SMALL_SHARD, whole_chunks
from isosr_pipeline.store.tensorstores import zarr_driver

# What zarr and its codecs raise for a shard that is cut short or altered.
_UNDECODABLE = (RuntimeError, ValueError)

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
        # Other programs label fewer channels than there are, or more.
        named = labels if labels and len(labels) == self.shape[0] else None
        self.channels = named or [f"channel {i}" for i in range(self.shape[0])]
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
    def identity(self) -> str:
        """What tells the volume from another one that takes its place.

        The id in the program's own attribute; of stores of other programs, a checksum of all their
        metadata.
        """
        if self.attributes is not None:
            return self.attributes.id
        metadata = [self._group.attrs.asdict(), *(a.metadata.to_dict() for a in self.arrays)]
        text = json.dumps(metadata, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def chunk(self) -> Zyx:
        """Chunks of level 0 in voxels."""
        return Zyx(*self.arrays[0].chunks[1:])

    def shard(self, level: int = 0) -> Zyx:
        """Shards of a level in voxels; its chunks where it has no shards."""
        array = self.arrays[level]
        return Zyx(*(array.shards or array.chunks)[1:])

    @cached_property
    def _scales(self) -> tuple[tuple[float, ...], ...]:
        return read_multiscale(self._group.attrs.asdict(), str(self.path)).scales

    def step(self, level: int) -> tuple[float, float, float]:
        """Return the voxels of level 0 along each side of a voxel of a level; order z, y, x."""
        z, y, x = (
            coarse / fine
            for coarse, fine in zip(self._scales[level][1:], self._scales[0][1:], strict=True)
        )
        return z, y, x

    def read(self, channel: int, box: Box, level: int = 0) -> NDArray[Any]:
        """Read a box that lies in the volume; returns (z, y, x) of the volume's dtype.

        Raises
        ------
        InputError
            When a shard is damaged; the message names its file.
        """
        try:
            data: NDArray[Any] = np.asarray(self.arrays[level][(channel, *box.slices)])
        except _UNDECODABLE as error:
            raise InputError(
                f"{self._damaged(channel, box, level)} can't be read ({error}): it is damaged or "
                "encoded in an unknown way; copy or make the store again"
            ) from error
        return data

    def _damaged(self, channel: int, box: Box, level: int) -> Path:
        """Find the file of the first shard of a box that can't be read; zarr doesn't say."""
        array, shard = self.arrays[level], self.shard(level)
        start = Zyx(*(a // s * s for a, s in zip(box.start, shard, strict=True)))
        for part in blocks(Box(start, box.stop), shard):
            try:
                _ = array[(channel, *part.slices)]
            except _UNDECODABLE:
                cell = (a // s for a, s in zip(part.start, shard, strict=True))
                return self.path / array.path / array.metadata.encode_chunk_key((channel, *cell))
        return self.path / array.path

    def writing(self, level: int = 0) -> AbstractContextManager[ShardWriter]:
        """Write shards of a level in the background; see `ShardWriter`.

        Raises
        ------
        BusyError
            When another store has taken the place of this one.
        """
        self._require_same()
        array = self.arrays[level]
        driver = zarr_driver(array.metadata.zarr_format)
        shard = together = self.shard(level)
        if not array.shards:
            # Chunks are handed over in groups of what would be a small shard.
            together = whole_chunks(SMALL_SHARD, shard)
        return writing(self.path / array.path, driver, shard, together)

    def is_same(self) -> bool:
        """Tell whether no other store has taken the place of this one since it was opened.

        Of stores of other programs that can't be told.

        Raises
        ------
        InputError
            When there is no store any more.
        """
        now = read_own(self._opened("r").attrs.asdict(), str(self.path))
        return (now and now.id) == (self.attributes and self.attributes.id)

    def _require_same(self) -> None:
        """Refuse to write for a run that is over, as a task on a distant worker may still try."""
        if not self.is_same():
            raise BusyError(f"{self.path} has been made anew by another process; it is left alone")

    def write(self, channel: int, box: Box, data: NDArray[Any], level: int = 0) -> None:
        """Write a box of whole shards, and wait until it is on disk.

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
        OSError
            When the file system takes no more.
        """
        with self.writing(level) as shards:
            shards.start(channel, box, data)

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

    def display_range(self, channel: int) -> tuple[float, float] | None:
        """Return the intensities at which viewers show a channel black and white, if recorded.

        The first intensity window, or what another program has written for viewers.
        """
        if self.attributes and self.attributes.windows:
            first = self.attributes.windows[channel][0]
            return first.low, first.high
        return read_display(self._group.attrs.asdict(), channel)

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
        """Refuse a store that a step has begun and not finished, or that has lost files since.

        Raises
        ------
        InputError
            When regions of it are still to be filled, or are gone.
        """
        if self.attributes is None:
            return
        if not self.attributes.complete:
            raise InputError(
                f"{self.path} is not complete: finish it first, with the command that made it "
                "and --resume"
            )
        before, now = self.attributes.files, self.count_files()
        if before is not None and now < before:
            raise InputError(
                f"{self.path}: level 0 has {now} files, and had {before} when it was completed; "
                "what is lost would be read as zeros: copy it again from where it is whole, or "
                "make it again with --overwrite"
            )

    def count_files(self) -> int:
        """Return how many files hold the voxels of level 0."""
        return count_files(self.path / self.arrays[0].path)

    def update(self, attributes: StoreAttributes) -> None:
        """Replace the program's own attribute, and the range in which viewers show channels."""
        self.attributes = attributes
        if attributes.windows:
            ranges = [(w[0].low, w[0].high) for w in attributes.windows]
            write_display(self._group, self.channels, ranges, display_limits(self.dtype, ranges))
        self._group.attrs[ATTRIBUTE] = attributes.model_dump(mode="json")


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    c, z, y, x = shape
    return c, z, y, x
