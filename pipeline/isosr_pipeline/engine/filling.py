"""Fills the regions of a store on a cluster: what convert, restore and the pyramid share."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Client

from isosr_cluster.runner import WAITS, Outcome, run_tasks
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.errors import (
    HopelessError,
    InterruptedRunError,
    IsosrError,
    WorkFailedError,
)
from isosr_pipeline.geometry import Region, RegionGrid
from isosr_pipeline.interrupts import stop_requests
from isosr_pipeline.progress import Reporter

Job = Callable[[Region], dict[str, Any]]
"""Computes and writes one region, and returns a few numbers as JSON holds them."""

_SHOWN_FAILURES = 5
_HOPELESS = 20
"""So many failures without a success before them: what is wrong is not one region's."""

TIMEOUT = 3600.0
"""Seconds that a region may take: one that hangs must not keep a run from its end."""

_SECONDS_BETWEEN_CHECKS = 2.0
_GO_ON = "mend the cause, then go on with --resume (run does so by itself)"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class _Failures:
    """Counts failures, and keeps the first few for the message."""

    count: int = 0
    shown: list[str] = field(default_factory=list)
    stop: str = ""

    def add(self, region: Region, error: BaseException | None, successes: int) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN_FAILURES:
            self.shown.append(f"{region}: {error or 'no result'}")
        if isinstance(error, HopelessError):
            raise HopelessError(f"{region}: {error}\nwhat is done is kept; {_GO_ON}") from error
        if isinstance(error, OSError) and error.errno in _DISK:
            self.stop = "the disk takes no more, so no other region was tried"
        elif self.count >= _HOPELESS and not successes:
            self.stop = f"the first {self.count} all failed, so no other region was tried"

    def describe(self, total: int, label: str) -> str:
        stop = f"{self.stop}\n" if self.stop else ""
        return (
            f"{label}: {self.count} of {total} regions failed:{self._listed()}\n{stop}"
            f"what is done is kept; {_GO_ON}"
        )

    def describe_interrupted(self, done: int, total: int) -> str:
        failed = f"\n{self.count} failed, and will be tried again:{self._listed()}"
        return (
            f"interrupted at {done} of {total} regions; what is done is kept: go on with --resume "
            f"(run does so by itself){failed if self.count else ''}"
        )

    def _listed(self) -> str:
        more = self.count - len(self.shown)
        return "".join(f"\n  {line}" for line in self.shown) + (
            f"\n  and {more} more" if more > 0 else ""
        )


def fill(
    client: Client,
    grid: RegionGrid,
    job: Job,
    ledger: Ledger,
    reporter: Reporter,
    label: str,
    *,
    timeout: float | None = TIMEOUT,
    waits: Sequence[float] = WAITS,
) -> None:
    """Run a job on every region that the ledger doesn't have, and record each as it is done.

    A region that fails is named at the end; the others are done all the same, and are kept. An
    interruption before all were tried is told as such, and the failures with it. A disk that is
    full ends the work at once, and so does a `HopelessError` of the job. Records are synced
    to the disk within a second or two, and at the end.

    Tasks that are cancelled may run on where the cluster is not this machine's. What they write is
    what any other would, and `Volume.writing` refuses to begin once another store is there.

    Parameters
    ----------
    client : distributed.Client
    grid : RegionGrid
    job : callable
        Picklable; returns a dict that must have ``"bytes"``, the uncompressed bytes written.
    ledger : Ledger
    reporter : Reporter
    label : str
        Name of this pass over the store, unique in its ledger.
    timeout : float or None
        Seconds that a region may take; see `run_tasks`.
    waits : sequence of float
        Seconds between attempts at a region whose errors may pass.

    Raises
    ------
    WorkFailedError
        When regions failed, the store was removed or replaced meanwhile, or the disk doesn't keep
        the ledger.
    HopelessError
        When one failed as all others would.
    InterruptedRunError
        After Ctrl-C or SIGTERM; also when regions failed, if others were not tried yet.
    """
    done = ledger.done[label]
    before = len(done)
    if before:
        reporter.say(f"{label}: {before} of {len(grid)} regions were done before")
    if before == len(grid):
        return
    pending = (grid[index] for index in range(len(grid)) if index not in done)
    failures = _Failures()
    gone = _now_and_then(ledger.require_there)
    synced = partial(_synced, ledger, ledger.sync_if_due)
    begin, size = time.monotonic(), 0
    with reporter.task(label, len(grid), "regions", before) as advance, stop_requests() as stopping:
        outcomes = run_tasks(
            client,
            job,
            pending,
            timeout=timeout,
            waits=waits,
            may_pass=may_pass,
            should_stop=lambda: stopping() or bool(failures.stop) or gone() or synced(),
        )
        # Closed by hand: what is raised would keep it, and its tasks, alive.
        with closing(outcomes):
            for outcome in outcomes:
                error = _recorded(ledger, label, outcome)
                if error is not None or outcome.value is None:
                    failures.add(outcome.item, error, len(done) - before)
                    continue
                size += outcome.value["bytes"]
                advance(1, f"{size / 1e6 / max(time.monotonic() - begin, 1e-9):.1f} MB/s")
        interrupted = stopping()
    # Where the store is gone, that is why regions failed.
    ledger.require_there()
    _synced(ledger, ledger.sync)
    untried = len(grid) - len(done) - failures.count
    if failures.count and (failures.stop or not (interrupted and untried)):
        raise WorkFailedError(failures.describe(len(grid), label))
    if interrupted:
        raise InterruptedRunError(failures.describe_interrupted(len(done), len(grid)))


def _recorded(
    ledger: Ledger, label: str, outcome: Outcome[Region, dict[str, Any]]
) -> BaseException | None:
    """Record how a region ended; return what is wrong with it, or with the ledger's disk."""
    region, result = outcome.item.index, outcome.value
    try:
        if outcome.error is None and result is not None:
            ledger.record(label, region, result)
        else:
            ledger.record_failure(label, region, str(outcome.error))
    except OSError as error:
        return outcome.error or error
    return outcome.error


def _synced(ledger: Ledger, sync: Callable[[], None]) -> bool:
    """Sync the ledger; return false."""
    try:
        sync()
    except OSError as error:
        ledger.require_there()
        raise WorkFailedError(
            f"{ledger.path} can't be synced to its disk ({error.strerror or error}), so what is "
            f"done might be lost with a power cut; {_GO_ON}"
        ) from error
    return False


def _now_and_then(check: Callable[[], None]) -> Callable[[], bool]:
    """Return what calls a check that raises, unless it has done so just before; it is false."""
    last = time.monotonic()

    def checked() -> bool:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_CHECKS:
            check()
            last = time.monotonic()
        return False

    return checked


def may_pass(error: BaseException) -> bool:
    """Tell whether an error is of the file system or network, and may be gone when tried again."""
    passing = isinstance(error, OSError) and error.errno not in _DISK
    return passing and not isinstance(error, IsosrError)
