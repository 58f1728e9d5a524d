"""The ledger: the durable record of the regions of a store that are done.

It is one append-only file inside the store while the store is being filled, a line of JSON a region
behind a header that binds it to what is being made. A torn last line, as a power cut leaves it, is
dropped. A lock keeps a second process out.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isosr_pipeline.errors import BusyError, OutputPathError, ResumeError

FILE = ".isosr-ledger.jsonl"
_FORMAT = 1
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
    total : int
        Number of regions of all passes, for those who watch.

    Attributes
    ----------
    done : dict of str to set of int
        Numbers of the regions that are done, for each pass over the store.

    Raises
    ------
    BusyError
        When another process holds the ledger.
    ResumeError
        When the store was begun from something else; the message names what differs.
    """

    def __init__(self, store: Path, making: Mapping[str, Any], total: int) -> None:
        self.path = store / FILE
        self.done: defaultdict[str, set[int]] = defaultdict(set)
        # Not buffered: a record that the disk refuses must not come back when the file is closed.
        self._file = self.path.open("ab", buffering=0)
        self._synced = 0.0
        _lock(self._file, store)
        if os.fstat(self._file.fileno()).st_nlink == 0:
            self._file.close()
            raise BusyError(f"{store} has just been finished or removed by another process")
        try:
            self._load(making, total)
        except BaseException:
            self._file.close()
            raise

    def _load(self, making: Mapping[str, Any], total: int) -> None:
        good = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                entry = _parse(line)
                if entry is None:
                    break
                if number == 0:
                    self._compare(entry, making)
                else:
                    self.done[entry["pass"]].add(entry["region"])
                good += len(line)
        self._file.truncate(good)
        if good == 0:
            self._append({"format": _FORMAT, "making": dict(making), "total": total})

    def _compare(self, header: dict[str, Any], making: Mapping[str, Any]) -> None:
        differing = differences(header.get("making", {}), making)
        if header.get("format") != _FORMAT or differing:
            raise ResumeError(
                f"{self.path.parent} was begun from something else ({differing}); resume with the "
                "same input and parameters, or start again with --overwrite"
            )

    def record(self, name: str, region: int, result: Mapping[str, Any]) -> None:
        """Record that a region is done, with what its task returned.

        What was recorded survives a kill at once, and a power cut after a second: a region whose
        record is lost is done again.

        Parameters
        ----------
        name : str
            Of the pass over the store, such as ``"convert"`` or ``"level 1"``.
        region : int
        result : mapping
            Anything that JSON can hold.

        Raises
        ------
        OSError
            When the file system takes no more; the ledger is then as it was.
        """
        self._append({"pass": name, "region": region, "result": dict(result)})
        self.done[name].add(region)

    def results(self, name: str) -> Iterator[dict[str, Any]]:
        """Read back what was recorded for each region of a pass; none is kept in memory."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                entry = json.loads(line)
                if entry["pass"] == name:
                    yield entry["result"]

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            self._file.truncate(before)
            raise
        # A sync takes longer than many a small region.
        if time.monotonic() - self._synced >= _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def moved_to(self, store: Path) -> None:
        """Follow a store that was renamed; the lock goes with it."""
        self.path = store / FILE

    def remove(self) -> None:
        """Remove the ledger of a store that is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the ledger and give its lock back."""
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
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a whole line, None for one that was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def count_done(store: Path) -> tuple[int, int]:
    """Return how many regions of all passes are done, and how many there are; takes no lock."""
    path = store / FILE
    if not path.exists():
        return 0, 0
    with path.open("rb") as file:
        header = _parse(file.readline()) or {}
        return sum(line.endswith(b"\n") for line in file), int(header.get("total", 0))
