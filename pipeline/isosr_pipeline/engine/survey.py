"""What a ledger tells those who watch: regions done, rate and failures; read without a lock."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname

import psutil

from isosr_pipeline.engine.records import (
    FILE,
    Head,
    failure_of,
    head_reader,
    is_opening,
    parse,
)
from isosr_pipeline.engine.region_set import RegionSet

RATE_OVER = 300.0
"""Seconds that a rate is taken over: the last minutes."""

_MOST_FAILURES = 1000
_READ_AT_ONCE = 2**20


@dataclass(frozen=True)
class Failure:
    """A region that was tried and is not done.

    Parameters
    ----------
    name : str
        Of the pass.
    region : int
    time : float
        Unix time in seconds.
    message : str
    """

    name: str
    region: int
    time: float
    message: str


@dataclass(frozen=True)
class Opening:
    """Who has begun, or resumed, to fill a store.

    Parameters
    ----------
    opened : float
        Unix time in seconds.
    host : str
    pid : int
    """

    opened: float
    host: str
    pid: int

    def runs(self) -> bool | None:
        """Tell whether that process still runs; None where it is on another machine."""
        if self.host != gethostname():
            return None
        try:
            # Another process may have got its number since.
            return bool(psutil.Process(self.pid).create_time() <= self.opened + 1)
        except psutil.NoSuchProcess:
            return False


@dataclass
class Pass:
    """How far a pass over a store has come.

    Parameters
    ----------
    name : str
    total : int or None
        None where the ledger doesn't tell.
    done, failed : RegionSet
    last : float or None
        When the last region was done, in Unix time; None if none is.
    recent : deque of float
        When regions were done during the time that a rate is taken over.
    """

    name: str
    total: int | None = None
    done: RegionSet = field(default_factory=RegionSet)
    failed: RegionSet = field(default_factory=RegionSet)
    last: float | None = None
    recent: deque[float] = field(default_factory=deque)

    def rate(self, since: float, now: float) -> float:
        """Return regions a second over the last minutes, but not longer ago than `since`."""
        begin = max(since, now - RATE_OVER)
        count = sum(time >= begin for time in self.recent)
        return count / max(now - begin, 1.0)


@dataclass
class Survey:
    """What is known of a store that is being filled.

    Parameters
    ----------
    passes : dict of str to Pass
        In the order in which they are made.
    opening : Opening or None
        The latest.
    failures : list of Failure
        Of regions that are not done, the latest last; at most a thousand.
    """

    passes: dict[str, Pass]
    opening: Opening | None = None
    failures: list[Failure] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Regions done in all passes."""
        return sum(len(one.done) for one in self.passes.values())

    @property
    def total(self) -> int:
        """Regions of all passes."""
        return sum(one.total or 0 for one in self.passes.values())

    @property
    def last(self) -> float | None:
        """When the last region was done, in Unix time."""
        return max((one.last for one in self.passes.values() if one.last), default=None)


def survey(store: Path, now: float | None = None) -> Survey | None:
    """Read the ledger of a store; takes no lock, and minds no torn line at its end.

    Parameters
    ----------
    store : Path
    now : float, optional
        Unix time in seconds that the last minutes are counted from.

    Returns
    -------
    Survey or None
        None where there is no ledger that can be read: the store is complete, or no one fills it.
    """
    begin = (time.time() if now is None else now) - RATE_OVER
    try:
        with (store / FILE).open("rb", buffering=_READ_AT_ONCE) as file:
            header = parse(file.readline())
            if header is None or not isinstance(header.get("passes"), dict):
                return None
            found = Survey({n: Pass(n, total) for n, total in header["passes"].items()})
            failures: deque[Failure] = deque(maxlen=_MOST_FAILURES)
            read = head_reader()
            for line in file:
                head = read(line)
                if head is not None:
                    _count(found, failures, line, head, begin)
                elif is_opening(line) and (entry := parse(line)):
                    found.opening = Opening(**entry)
                else:
                    break
    except (FileNotFoundError, NotADirectoryError):
        return None
    # The latest of each region that is still not done.
    latest = {(f.name, f.region): f for f in failures}
    found.failures = [f for f in latest.values() if f.region in found.passes[f.name].failed]
    return found


def _count(found: Survey, failures: deque[Failure], line: bytes, head: Head, begin: float) -> None:
    one = found.passes.get(head.name)
    if one is None:
        one = found.passes[head.name] = Pass(head.name)
    if head.is_done:
        one.done.add(head.region)
        one.failed.discard(head.region)
        one.last = head.time
        if head.time >= begin:
            one.recent.append(head.time)
    else:
        one.done.discard(head.region)
        one.failed.add(head.region)
        failures.append(Failure(head.name, head.region, head.time, failure_of(line, head)))


def finished_at(store: Path) -> float | None:
    """Return when a complete store was finished, in Unix time: when its metadata were written."""
    times = [p.stat().st_mtime for p in _metadata(store) if p.is_file()]
    return max(times, default=None)


def _metadata(store: Path) -> list[Path]:
    return [store / "zarr.json", store / ".zattrs"]
