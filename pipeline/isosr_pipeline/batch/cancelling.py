"""Cancelling: the end of a brain's jobs, and of its workers'."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.records import RECORD, locked

_SECONDS_TO_END = 300.0
_SECONDS_BETWEEN_LOOKS = 1.0


def cancel_batch(entries: Sequence[Entry]) -> dict[str, list[Job]]:
    """End all jobs of brains, and wait until they have ended.

    A driver that was just about to queue itself again, or to start another worker, is found and
    ended too.

    Parameters
    ----------
    entries : sequence of Entry

    Returns
    -------
    dict of str to list of Job
        The jobs that were ended, as they were before, by the labels of the brains.

    Raises
    ------
    SlurmError
        When SLURM does not answer, or some have not ended after five minutes.
    BusyError
        When another process submits one of the brains now.
    """
    tags = {entry.tag: entry.label for entry in entries}
    ended: dict[int, Job] = {}
    with ExitStack() as locks:
        for entry in entries:
            if (entry.brain.output / RECORD).is_file():
                locks.enter_context(locked(entry.brain.output))
        until = time.monotonic() + _SECONDS_TO_END
        while live := _live(tags):
            if time.monotonic() >= until:
                raise SlurmError(
                    f"jobs {', '.join(map(str, sorted(live)))} have not ended "
                    f"{_SECONDS_TO_END:g} s after they were cancelled; look with squeue, and "
                    "cancel again"
                )
            ended = {**live, **ended}
            commands.cancel([job.id for job in live.values() if job.state != "COMPLETING"])
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    found: dict[str, list[Job]] = {entry.label: [] for entry in entries}
    for job in sorted(ended.values(), key=lambda job: job.id):
        found[tags[_tag(job)]].append(job)
    return found


def _live(tags: dict[str, str]) -> dict[int, Job]:
    return {
        number: job
        for number, job in commands.find_jobs().items()
        if not job.ended and _tag(job) in tags
    }


def _tag(job: Job) -> str:
    return job.comment.rpartition(":")[0]
