"""Cancelling: the end of a brain's jobs, and of its workers'."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import psutil

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.records import RECORD, locked
from isosr_pipeline.errors import BusyError
from isosr_pipeline.leading import Leader, find_leader

_SECONDS_TO_END = 300.0
_SECONDS_BETWEEN_LOOKS = 1.0


def cancel_batch(
    entries: Sequence[Entry], say: Callable[[str], None] = lambda _: None
) -> dict[str, list[Job]]:
    """End all jobs of brains, and wait until they have ended.

    A driver that was just about to queue itself again, or to start another worker, is found and
    ended too. So is a process on this machine that leads such jobs from a terminal.

    Parameters
    ----------
    entries : sequence of Entry
    say : callable
        Told of processes that are asked to stop.

    Returns
    -------
    dict of str to list of Job
        The jobs that were ended, as they were before, by the labels of the brains.

    Raises
    ------
    SlurmError
        When SLURM does not answer, or some have not ended after five minutes.
    BusyError
        When another process submits one of the brains now, or leads its jobs elsewhere; nothing is
        ended then.
    """
    tags = {entry.tag: entry.label for entry in entries}
    ended: dict[int, Job] = {}
    with ExitStack() as locks:
        for entry in entries:
            if (entry.brain.output / RECORD).is_file():
                locks.enter_context(locked(entry.brain.output))
        _stop_leaders(entries, say)
        until = time.monotonic() + _SECONDS_TO_END
        while True:
            # Before the jobs: whoever leads may replace those that are ended.
            leaders = [*filter(None, (find_leader(entry.brain.output) for entry in entries))]
            live = _live(tags)
            if not leaders and not live:
                break
            if time.monotonic() >= until:
                raise SlurmError(_not_ended(live, leaders))
            ended = {**live, **ended}
            commands.cancel([job.id for job in live.values() if job.state != "COMPLETING"])
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    found: dict[str, list[Job]] = {entry.label: [] for entry in entries}
    for job in sorted(ended.values(), key=lambda job: job.id):
        found[tags[_tag(job)]].append(job)
    return found


def _stop_leaders(entries: Sequence[Entry], say: Callable[[str], None]) -> None:
    """Ask the processes to stop that lead work on brains from a terminal.

    Raises
    ------
    BusyError
        When one can't be reached from here; none is asked then.
    """
    found: list[tuple[Entry, psutil.Process]] = []
    for entry in entries:
        leader = find_leader(entry.brain.output)
        if leader is None:
            continue
        process = leader.process()
        with suppress(psutil.NoSuchProcess):
            if process is not None and process.uids().effective != os.geteuid():
                process = None
        if process is None:
            raise BusyError(
                f"{entry.label}: {leader} leads the work on this brain, would replace jobs that "
                "are ended, and can't be stopped from here; stop it where it runs (Ctrl-C, or "
                f"kill {leader.pid or 'its process'}), then cancel again"
            )
        found.append((entry, process))
    for entry, process in found:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        say(f"{entry.name}: process {process.pid}, which leads its jobs, is asked to stop")


def _not_ended(live: dict[int, Job], leaders: Sequence[Leader]) -> str:
    jobs = [f"jobs {', '.join(map(str, sorted(live)))}"] if live else []
    left = " and ".join([*jobs, *map(str, leaders)])
    return (
        f"{left} have not ended {_SECONDS_TO_END:g} s after they were cancelled; look with squeue, "
        "and cancel again"
    )


def _live(tags: dict[str, str]) -> dict[int, Job]:
    return {
        number: job
        for number, job in commands.find_jobs().items()
        if not job.ended and _tag(job) in tags
    }


def _tag(job: Job) -> str:
    return job.comment.rpartition(":")[0]
