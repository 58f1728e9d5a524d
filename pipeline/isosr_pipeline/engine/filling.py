"""Fills the regions of a store on a cluster: what convert, restore and the pyramid share."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

from distributed import Client

from isosr_cluster.runner import run_tasks
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.errors import IsosrError, WorkFailedError
from isosr_pipeline.geometry import Region, RegionGrid
from isosr_pipeline.progress import Reporter

Job = Callable[[Region], dict[str, Any]]
"""Computes and writes one region, and returns a few numbers as JSON holds them."""

_SHOWN_FAILURES = 5


def fill(
    client: Client, grid: RegionGrid, job: Job, ledger: Ledger, reporter: Reporter, label: str
) -> None:
    """Run a job on every region that the ledger doesn't have, and record each as it is done.

    A region that fails is named at the end; the others are done all the same, and are kept.

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

    Raises
    ------
    WorkFailedError
        When regions failed.
    """
    done = ledger.done[label]
    pending = (grid[index] for index in range(len(grid)) if index not in done)
    failures: list[str] = []
    begin = time.monotonic()
    size = 0
    with reporter.task(label, len(grid), "regions", len(done)) as advance:
        for outcome in run_tasks(client, job, pending, may_pass=_may_pass):
            if outcome.error is not None or outcome.value is None:
                failures.append(f"{outcome.item}: {outcome.error or 'no result'}")
                continue
            ledger.record(label, outcome.item.index, outcome.value)
            size += outcome.value["bytes"]
            rate = size / 1e6 / max(time.monotonic() - begin, 1e-9)
            advance(1, f"{rate:.1f} MB/s")
    if failures:
        raise WorkFailedError(_describe(failures, len(grid), label))


def _may_pass(error: BaseException) -> bool:
    """Tell whether an error of the file system or the network may be gone at the next attempt."""
    return (
        isinstance(error, OSError)
        and not isinstance(error, IsosrError)
        and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    )


def _describe(failures: list[str], total: int, label: str) -> str:
    shown = "\n  ".join(failures[:_SHOWN_FAILURES])
    more = len(failures) - _SHOWN_FAILURES
    rest = f"\n  and {more} more" if more > 0 else ""
    return (
        f"{label}: {len(failures)} of {total} regions failed:\n  {shown}{rest}\n"
        "the others are done and kept; mend the cause, then go on with --resume "
        "(run does so by itself)"
    )
