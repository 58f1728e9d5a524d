"""When to go on submitting jobs of workers, and when it makes no sense any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isosr_cluster.errors import SlurmBusyError, SlurmError, WorkersLostError
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.logs import tail

MOST_STILLBORN = 3
"""So many jobs that no worker came from, and none that one still may: no other will do better."""

MOST_REFUSED = 3
"""So many refusals by SLURM in a row, while no job is left."""

_LOSSES, _LOSSES_PER_JOB = 10, 2
_LONGEST_WAIT = 60.0
_MOST_DOUBLINGS = 10
_STILLBORN_ON_A_NODE = 2
_TAKEN = ("CANCELLED", "PREEMPTED")


_NEVER = (
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "AssocMaxWallDurationPerJobLimit",
    "QOSMaxWallDurationPerJobLimit",
)
"""Why jobs wait that SLURM has taken and will never begin."""


def never_begins(waiting: Sequence[Job]) -> WorkersLostError | None:
    """Tell why none of the jobs that wait will ever begin; None if one may.

    Parameters
    ----------
    waiting : sequence of Job
    """
    if not waiting or any(job.reason not in _NEVER for job in waiting):
        return None
    reasons = ", ".join(sorted({job.reason for job in waiting}))
    return WorkersLostError(
        f"jobs of workers will never begin: {reasons}, says SLURM of job {waiting[0].id} "
        f"(walltime {waiting[0].limit}); mend the site file: what is done is kept, go on with "
        "--resume then"
    )


@dataclass(frozen=True)
class Loss:
    """A job that has ended.

    Parameters
    ----------
    number : int
    state : str
        As SLURM names it.
    node : str
        Empty where it is not known.
    joined : bool
        Whether a worker of it ever reached the driver.
    log : Path
    """

    number: int
    state: str
    node: str
    joined: bool
    log: Path

    def __str__(self) -> str:
        return f"job {self.number} ({self.state}{f' on {self.node}' if self.node else ''})"

    @property
    def stillborn(self) -> bool:
        """Whether it ended by itself before a worker came from it."""
        return not self.joined and self.state not in _TAKEN


class Losses:
    """Counts jobs that are lost, against what goes well meanwhile.

    Parameters
    ----------
    jobs : int
        That there should be.

    Attributes
    ----------
    shunned : list of str
        Nodes where jobs end at once, while others work elsewhere.
    """

    def __init__(self, jobs: int) -> None:
        self._budget = _LOSSES + _LOSSES_PER_JOB * jobs
        self._lost = self._stillborn = self._refused = 0
        self._finished = self._joined = 0
        self._last: Loss | None = None
        self._refusal: SlurmError | None = None
        self._waits = False
        self._on_node: Counter[str] = Counter()
        self.shunned: list[str] = []

    def progress(self, finished: int, joined: int) -> None:
        """Say how many tasks have ended well, and how many workers have come, until now."""
        if finished > self._finished:
            self._lost = 0
        if joined > self._joined or finished > self._finished:
            self._stillborn = 0
        self._finished, self._joined = finished, joined

    def works_on(self, node: str) -> None:
        """Say that a new worker has come from a node: what ended there was not its fault."""
        self._on_node.pop(node, None)

    def add(self, loss: Loss) -> None:
        """Count a job that has ended."""
        self._last = loss
        self._lost += 1
        self._refused, self._waits = 0, False
        if loss.joined:
            self._stillborn = 0
        if not loss.stillborn:
            return
        self._stillborn += 1
        self._on_node[loss.node] += 1
        # Until a worker has come from elsewhere, it may be the fault of all nodes.
        often = self._on_node[loss.node] >= _STILLBORN_ON_A_NODE
        if loss.node and self._joined and often and loss.node not in self.shunned:
            self.shunned.append(loss.node)

    def refused(self, problem: SlurmError | None) -> None:
        """Count a job that SLURM did not take."""
        self._refusal = problem
        self._refused += 1
        self._waits = isinstance(problem, SlurmBusyError)

    @property
    def seconds_to_wait(self) -> float:
        """How long to wait before further jobs, after the last loss."""
        if self._waits:
            return _LONGEST_WAIT
        failures = min(self._lost + self._refused, _MOST_DOUBLINGS)
        return float(min(_LONGEST_WAIT, 2.0 ** (failures - 1))) if failures else 0.0

    def problem(self, running: int, waiting: int, driver: str) -> WorkersLostError | None:
        """Tell why it makes no sense to go on; None if it does.

        Parameters
        ----------
        running, waiting : int
            Jobs that are left.
        driver : str
            Where workers should reach it.
        """
        if self._refused >= MOST_REFUSED and not self._waits and not running + waiting:
            return WorkersLostError(f"no job of workers can be submitted: {self._refusal}")
        if self._last is None:
            return None
        seen = f"the last was {self._last}{tail(self._last.log)}"
        if self._stillborn >= MOST_STILLBORN and not running:
            return WorkersLostError(
                f"workers do not start: {self._stillborn} jobs have ended before a worker reached "
                f"the driver at {driver}; {seen}\nmend the site file, and try it with "
                "isosr-pipeline site check; what is done is kept: go on with --resume then"
            )
        if self._lost > self._budget:
            return WorkersLostError(
                f"{self._lost} jobs of workers have ended since the last region was done; {seen}\n"
                "if it reached its walltime, regions take longer than that: give more walltime or "
                "a smaller --shard; what is done is kept: go on with --resume"
            )
        return None
