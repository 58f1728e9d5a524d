"""The ledger: the durable record of the regions of a store that are done.

It is one append-only file inside the store while the store is being filled, a line of JSON a region
behind a header that binds it to what is being made (`engine.records`). A torn last line, as a power
cut leaves it, is dropped. A lock keeps a second process out.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from socket import gethostname
from types import TracebackType
from typing import Any, Self

from isosr_pipeline.engine.records import (
    FILE,
    FORMAT,
    Head,
    encode,
    encode_done,
    encode_failed,
    files_of,
    head_reader,
    is_opening,
    parse,
    records,
    result_of,
)
from isosr_pipeline.engine.region_set import RegionSet
from isosr_pipeline.errors import BusyError, OutputPathError, ResumeError, WorkFailedError
from isosr_pipeline.locking import flock

_READ_AT_ONCE = 2**20
_SECONDS_BETWEEN_SYNCS = 1.0


def differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what two descriptions of a store differ; empty if in nothing."""
    return "; ".join(_differences(begun, now, ""))


def _differences(begun: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted({*begun, *now}):
        old, new = begun.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {old!r} and is {new!r}"


class Ledger:
    """The ledger of one store, open and locked; a context manager.

    Parameters
    ----------
    store : Path
        Folder of the store.
    making : mapping
        All that decides the result: input, parameters, versions. An existing ledger must agree.
    passes : mapping of str to int
        Numbers of regions of all passes over the store, for those who watch.

    Attributes
    ----------
    done : dict of str to RegionSet
        Numbers of the regions that are done, for each pass over the store.

    Raises
    ------
    BusyError
        When another process holds the ledger.
    ResumeError
        When the store was begun from something else, or by another version; the message says what
        differs.
    """

    def __init__(self, store: Path, making: Mapping[str, Any], passes: Mapping[str, int]) -> None:
        self.path = store / FILE
        self.done: defaultdict[str, RegionSet] = defaultdict(RegionSet)
        # Not buffered: a record that the disk refuses must not come back when the file is closed.
        self._file = self.path.open("ab", buffering=0)
        self._synced = 0.0
        self._is_synced = True
        _lock(self._file, store)
        if os.fstat(self._file.fileno()).st_nlink == 0:
            self._file.close()
            raise BusyError(f"{store} has just been finished or removed by another process")
        try:
            self._load(making, passes)
        except BaseException:
            self._file.close()
            raise

    def _load(self, making: Mapping[str, Any], passes: Mapping[str, int]) -> None:
        with self.path.open("rb", buffering=_READ_AT_ONCE) as file:
            first = file.readline()
            header = parse(first)
            good = 0
            if header is not None:
                self._compare(header, making)
                good = len(first) + self._mark(file)
        self._file.truncate(good)
        if good == 0:
            self._append(encode({"format": FORMAT, "making": dict(making), "passes": dict(passes)}))
        opened = {"opened": round(time.time(), 1), "host": gethostname(), "pid": os.getpid()}
        # Only for those who watch: on a full disk, the first region will say so.
        with suppress(OSError):
            self._append(encode(opened))

    def _mark(self, lines: Iterable[bytes]) -> int:
        """Mark what is done; return the bytes of all lines before the first that is torn."""
        size = 0
        read = head_reader()
        for line in lines:
            head = read(line)
            if head is not None:
                done = self.done[head.name]
                (done.add if head.is_done else done.discard)(head.region)
            elif not is_opening(line):
                break
            size += len(line)
        return size

    def _compare(self, header: dict[str, Any], making: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT:
            raise ResumeError(
                f"{self.path} has format {header.get('format')}, and this version of "
                f"isosr-pipeline goes on with format {FORMAT} only; finish the store with the "
                "version that began it, or start again with --overwrite"
            )
        if differing := differences(header.get("making", {}), making):
            raise ResumeError(
                f"{self.path.parent} was begun from something else ({differing}); resume with the "
                "same input and parameters, or start again with --overwrite"
            )

    def record(self, name: str, region: int, result: Mapping[str, Any]) -> None:
        """Record that a region is done, with what its task returned.

        What was recorded survives a kill at once, and a power cut once it is synced: with the first
        record, or call of `sync_if_due`, that comes a second after the last time. A region whose
        record is lost is done again.

        Parameters
        ----------
        name : str
            Of the pass over the store, such as ``"convert"`` or ``"level 1"``.
        region : int
        result : mapping
            Anything that JSON can hold; ``"files"`` are what `store.written` can check later.

        Raises
        ------
        OSError
            When the file system takes no more; the record is then taken back.
        """
        self._append(encode_done(name, region, time.time(), result))
        self.done[name].add(region)

    def record_failure(self, name: str, region: int, message: str) -> None:
        """Record that a region is not done, and why; it says what `record` does otherwise."""
        self.done[name].discard(region)
        self._append(encode_failed(name, region, time.time(), message))

    def results(self, name: str) -> Iterator[dict[str, Any]]:
        """Read back what was recorded for each region of a pass; none is kept in memory."""
        seen = RegionSet()
        for line, head in self._records():
            # One that was done twice was done alike.
            if head.name == name and head.region in self.done[name] and head.region not in seen:
                seen.add(head.region)
                yield result_of(line, head)

    def files(self) -> Iterator[tuple[str, int, bytes]]:
        """Read back the files of each region, with its pass, as JSON; of one done again, twice."""
        for line, head in self._records():
            yield head.name, head.region, files_of(line, head)

    def _records(self) -> Iterator[tuple[bytes, Head]]:
        """Yield the lines on regions that were done."""
        with self.path.open("rb", buffering=_READ_AT_ONCE) as file:
            next(file)
            for line, head in records(file):
                if head.is_done:
                    yield line, head

    def _append(self, encoded: bytes) -> None:
        line = memoryview(encoded)
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            self._is_synced = False
            self.sync_if_due()
        except OSError:
            self._file.truncate(before)
            raise

    def sync_if_due(self) -> None:
        """Have the disk keep what was recorded, unless it did within the last second.

        To be called now and then, as hours may pass before the next record.

        Raises
        ------
        OSError
            When the file system refuses.
        """
        # A sync takes longer than many a small region.
        if time.monotonic() - self._synced >= _SECONDS_BETWEEN_SYNCS:
            self.sync()

    def sync(self) -> None:
        """Have the disk keep all that was recorded; `sync_if_due` says what is raised."""
        if not self._is_synced:
            os.fsync(self._file.fileno())
            self._synced, self._is_synced = time.monotonic(), True

    def require_there(self) -> None:
        """Refuse to go on with a store that was removed, or replaced by another one.

        Raises
        ------
        WorkFailedError
        """
        ours = os.fstat(self._file.fileno())
        try:
            same = os.path.samestat(ours, self.path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise WorkFailedError(
                f"{self.path.parent} was removed or replaced by another process while it was being "
                "filled, so what was done is lost; leave it alone until the end, and give the same "
                "command again"
            )

    def moved_to(self, store: Path) -> None:
        """Follow a store that was renamed; the lock goes with it."""
        self.path = store / FILE

    def remove(self) -> None:
        """Remove the ledger of a store that is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the ledger and give its lock back."""
        # What the disk doesn't keep is done again.
        with suppress(OSError):
            self.sync()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def not_being_filled(store: Path) -> Iterator[None]:
    """Hold the lock of a store, so that it can be removed.

    Raises
    ------
    BusyError
        When another process is filling it.
    """
    path = store / FILE
    if not path.exists():
        yield
        return
    with path.open("rb") as file:
        _lock(file, store)
        yield


def _lock(file: BufferedReader | FileIO, store: Path) -> None:
    try:
        flock(file)
    except BlockingIOError as error:
        file.close()
        raise BusyError(
            f"{store} is being filled by another process; wait for it or stop it"
        ) from error
    except OSError as error:
        file.close()
        raise OutputPathError(
            f"{store} can't be locked ({error.strerror or error}), and two processes that fill one "
            "store would lose data: have its file system mounted with file locks (flock), or give "
            "a path on another one"
        ) from error
