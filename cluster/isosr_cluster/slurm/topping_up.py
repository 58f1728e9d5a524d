"""Keeps workers in SLURM's queue: jobs that end are replaced, unless they all end at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from isosr_cluster.errors import SlurmError, WorkersLostError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.jobs import WorkerJob
from isosr_cluster.slurm.losses import Loss, Losses, never_begins

_SECONDS_UNTIL_KNOWN = 60.0
"""SLURM may not name a job at once; one that it doesn't after this time is gone."""

_SECONDS_BETWEEN_REMARKS = 300.0
_EXCLUDE = "--exclude="

_SECONDS_OF_CALM = 15.0
"""Between questions to SLURM, while all is as it was."""

_SECONDS_OF_CARE = 30.0
"""In which it is asked at every look, after something has changed."""


class _Witness(SchedulerPlugin):  # type: ignore[misc] # distributed is untyped
    """Sees which workers come, and how many tasks end well; it lives in the scheduler."""

    def __init__(self) -> None:
        self.joined: set[str] = set()
        self.finished = self.came_and_went = 0

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self.joined.add(str(scheduler.workers[worker].name))
        self.came_and_went += 1

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self.came_and_went += 1

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        self.finished += start == "processing" and finish == "memory"


class TopUp:
    """Looks after the jobs of a cluster's workers; runs in the cluster's loop.

    Parameters
    ----------
    cluster : SLURMCluster
        Whose jobs are `WorkerJob`.
    count : int
        Jobs that there should be.
    log_of : callable
        Returns the log of a job by its number.
    say : callable
        Told of what a user should know.

    Attributes
    ----------
    problem : WorkersLostError or None
        Why it has given up.
    """

    def __init__(
        self, cluster: Any, count: int, log_of: Callable[[int], Path], say: Callable[[str], None]
    ) -> None:
        self._cluster, self._count, self._log_of, self._say = cluster, count, log_of, say
        self._witness = _Witness()
        cluster.scheduler.add_plugin(self._witness)
        self._losses = Losses(count)
        options = cluster.new_spec["options"]
        self._processes: int = options["processes"]
        self._directives: list[str] = list(options["directives"])
        self._excluded = [
            line.removeprefix(_EXCLUDE) for line in self._directives if line.startswith(_EXCLUDE)
        ]
        self._first_seen: dict[int, float] = {}
        self._known: set[str] = set()
        self._asked = self._busy_until = -math.inf
        self._came_and_went = 0
        self._not_before = 0.0
        self._remarked = time.monotonic()
        self._give_up: Callable[[], None] = lambda: None
        self.problem: WorkersLostError | None = None

    def on_giving_up(self, call: Callable[[], None]) -> None:
        """Have something called, in a thread of its own, when it makes no sense to go on."""
        self._give_up = call

    async def look(self) -> None:
        """See whether jobs have ended, if some may have; asked every few seconds."""
        if self.problem is not None or not self._is_due():
            return
        try:
            await self._look()
        except Exception as error:  # noqa: BLE001 - nobody else would ever hear of it
            self.problem = WorkersLostError(
                f"jobs of workers can't be looked after any more ({type(error).__name__}: "
                f"{error}); what is done is kept: go on with --resume"
            )
        if self.problem is not None:
            await asyncio.to_thread(self._give_up)

    def _is_due(self) -> bool:
        """Tell whether to ask SLURM now, which has others to answer too."""
        now, came_and_went = time.monotonic(), self._witness.came_and_went
        missing = len(self._cluster.workers) < self._count and now >= self._not_before
        if came_and_went != self._came_and_went or missing:
            self._busy_until = now + _SECONDS_OF_CARE
        self._came_and_went = came_and_went
        if now >= self._busy_until and now < self._asked + _SECONDS_OF_CALM:
            return False
        self._asked = now
        return True

    async def _look(self) -> None:
        """See which jobs have ended, and submit others in their place."""
        jobs: dict[str, WorkerJob] = dict(self._cluster.workers)
        numbers = [job.number for job in jobs.values() if job.number is not None]
        try:
            found = await asyncio.to_thread(commands.find_jobs, numbers)
        except SlurmError:
            return  # it is asked again soon; the workers that are there work on
        self._losses.progress(self._witness.finished, len(self._witness.joined))
        for name, job in jobs.items():
            if self._is_over(name, job, found):
                await self._forget(name, job)
            elif job.number in found and name not in self._known and self._has_joined(name):
                self._known.add(name)
                self._losses.works_on(found[job.number].node)
        left = [job for job in found.values() if not job.ended]
        waiting = [job for job in left if job.state == "PENDING"]
        driver = self._cluster.scheduler.address
        self.problem = self._losses.problem(len(left) - len(waiting), len(waiting), driver)
        if len(left) == len(waiting):
            self.problem = self.problem or never_begins(waiting)
        if self.problem is not None:
            return
        self._remark(waiting)
        if time.monotonic() >= self._not_before:
            self._cluster.scale(jobs=self._count)

    def _is_over(self, name: str, job: WorkerJob, found: Mapping[int, Job]) -> bool:
        """Tell whether a job will never run, or run again, and count it then."""
        if job.number is None:
            self._losses.refused(job.problem)
            return True
        told = found.get(job.number)
        since = self._first_seen.setdefault(job.number, time.monotonic())
        if told is None and time.monotonic() - since < _SECONDS_UNTIL_KNOWN:
            return False
        if told is not None and not told.ended:
            return False
        state, node = (told.state, told.node) if told else ("forgotten by SLURM", "")
        loss = Loss(job.number, state, node, self._has_joined(name), self._log_of(job.number))
        shunned = len(self._losses.shunned)
        self._losses.add(loss)
        self._say(f"{loss} of workers has ended; another takes its place")
        if len(self._losses.shunned) > shunned:
            self._shun()
        return True

    def _has_joined(self, name: str) -> bool:
        """Tell whether a worker of a job ever came."""
        return bool(_names_of(name, self._processes).intersection(self._witness.joined))

    def _shun(self) -> None:
        """Keep further jobs from nodes where they end at once."""
        directives: list[str] = self._cluster.new_spec["options"]["directives"]
        nodes = self._losses.shunned
        # SLURM minds the last of these options only: what the site excludes stays excluded.
        directives[:] = [*self._directives, _EXCLUDE + ",".join([*self._excluded, *nodes])]
        self._say(f"{nodes[-1]} gets no more jobs: several have ended there before a worker began")

    async def _forget(self, name: str, job: WorkerJob) -> None:
        """Make room for another job in the place of one that is over."""
        job.give_up()
        self._cluster.workers.pop(name, None)
        self._cluster.worker_spec.pop(name, None)
        scheduler, names = self._cluster.scheduler, _names_of(name, self._processes)
        for address, worker in list(scheduler.workers.items()):
            # Of a node that is gone nobody else tells; its tasks are given to others at once.
            if str(worker.name) in names:
                await scheduler.remove_worker(address, stimulus_id=f"job-ended-{name}")
        self._not_before = time.monotonic() + self._losses.seconds_to_wait

    def _remark(self, waiting: list[Job]) -> None:
        """Say now and then why no worker is there."""
        now = time.monotonic()
        if self._cluster.scheduler.workers or not waiting:
            self._remarked = now
        elif now - self._remarked >= _SECONDS_BETWEEN_REMARKS:
            reasons = Counter(job.reason or "no reason given" for job in waiting)
            shown = ", ".join(f"{count} for {reason}" for reason, count in reasons.items())
            self._say(f"jobs of workers wait in SLURM's queue: {shown}")
            self._remarked = now


def _names_of(job: str, processes: int) -> set[str]:
    """Return the names of the workers of a job."""
    return {job} if processes == 1 else {f"{job}-{place}" for place in range(processes)}
