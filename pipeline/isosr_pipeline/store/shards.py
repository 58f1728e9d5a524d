"""Writes whole shards of a level: durably, at once or not at all, while the caller computes on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorstore as ts
from numpy.typing import NDArray

from isosr_pipeline.errors import AlignmentError
from isosr_pipeline.geometry import AXES, Box, Zyx, blocks
from isosr_pipeline.store.file_names import each_file, name_files
from isosr_pipeline.store.tensorstores import FAILURES, Driver, as_os_error, open_tensorstore

_IN_FLIGHT = 2
"""One that is encoded and one on its way to the disk: more would only take memory."""


@dataclass
class ShardWriter:
    """Writes shards in the background, each under another name until it is whole and on disk.

    Parameters
    ----------
    folder : Path
        Of the array.
    array : tensorstore.TensorStore
        (c, z, y, x)
    shard : Zyx
        What is one file, in voxels.
    together : Zyx
        What is handed over at once, in voxels: whole shards.
    zarr_format : {2, 3}
    """

    folder: Path
    array: ts.TensorStore
    shard: Zyx
    together: Zyx
    zarr_format: int
    _pending: deque[Any] = field(default_factory=deque)

    def start(self, channel: int, box: Box, data: NDArray[Any]) -> None:
        """Begin to write a box; `data` must stay as it is until `wait`.

        Parameters
        ----------
        channel : int
        box : Box
            Begins and ends on borders of shards or of the volume.
        data : ndarray, (z, y, x)
            Of the array's dtype.

        Raises
        ------
        AlignmentError
            When `box` covers a part of a shard: a second writer of that shard would lose data.
        OSError
            When the file system takes no more.
        """
        self._check(box)
        self._clear(channel, box)
        for part in blocks(box, self.together):
            while len(self._pending) >= _IN_FLIGHT:
                self._wait_for_one()
            values = data[part.relative_to(box.start).slices]
            target = self.array[(channel, *part.slices)]
            self._pending.append(target.write(values, can_reference_source_data_indefinitely=True))

    def _clear(self, channel: int, box: Box) -> None:
        """Remove the files of shards that reach beyond the border, and of those beside them.

        What lies beyond would be read from them, and kept: of damaged ones nothing can be read.
        """
        if not any(b % shard for b, shard in zip(box.stop, self.shard, strict=True)):
            return
        for name in each_file(name_files(channel, box, self.shard, self.zarr_format)):
            (self.folder / name).unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait until all that was begun is on disk; `start` says what is raised."""
        while self._pending:
            self._wait_for_one()

    def settle(self) -> None:
        """Wait until nothing is being written, whatever becomes of it."""
        while self._pending:
            self._pending.popleft().exception()

    def _wait_for_one(self) -> None:
        try:
            self._pending.popleft().result()
        except FAILURES as error:
            raise as_os_error(error, self.folder) from error

    def _check(self, box: Box) -> None:
        for axis, a, b, n, shard in zip(
            AXES, box.start, box.stop, self.array.shape[1:], self.shard, strict=True
        ):
            if a % shard or (b % shard and b != n) or not 0 <= a < b <= n:
                raise AlignmentError(
                    f"{self.folder}, axis {axis}: {a}:{b} does not begin and end on shards of "
                    f"{shard} voxels or the border at {n}; write whole shards only"
                )


@contextmanager
def writing(folder: Path, driver: Driver, shard: Zyx, together: Zyx) -> Iterator[ShardWriter]:
    """Write shards of an array that is there; at the end, all of them are on disk.

    Parameters
    ----------
    folder : Path
        Of the array.
    driver : {"zarr3", "zarr"}
    shard, together : Zyx
        See `ShardWriter`.

    Raises
    ------
    OSError
        When the array can't be opened, or the file system takes no more.
    """
    with _held(folder) as path:
        try:
            array = open_tensorstore(path, driver, writable=True)
        except FAILURES as error:
            raise as_os_error(error, folder) from error
        writer = ShardWriter(folder, array, shard, together, 3 if driver == "zarr3" else 2)
        try:
            yield writer
            writer.wait()
        finally:
            writer.settle()


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """Return a path that stays that of a folder as it is now, wherever it is moved.

    By its name, folders would be made again for a store that was removed meanwhile.
    """
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        # Opening it as an array says what is wrong.
        yield folder
        return
    try:
        held = Path(f"/proc/self/fd/{number}")
        # Only Linux has it.
        yield held if held.is_dir() else folder
    finally:
        os.close(number)
