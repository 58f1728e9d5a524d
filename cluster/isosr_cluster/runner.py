"""Runs one function over very many items, with a bounded number of tasks in flight."""

from __future__ import annotations

import heapq
import itertools
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from distributed import Client, KilledWorker
from distributed.client import ClosedClientError

from isosr_cluster.asking import within
from isosr_cluster.errors import ClusterLostError, NotDoneError, TaskTimeoutError, WorkerDiedError
from isosr_cluster.flight import Flight, Item, Trial
from isosr_cluster.held_function import HeldFunction

Value = TypeVar("Value")

WAITS = (1.0, 4.0)
"""Seconds before the second and the third attempt at an item whose errors may pass."""

WAY_ON = "what is done is kept: go on with --resume"
"""What to do after a cluster is lost, where the caller doesn't say otherwise."""

_JITTER = 0.25
_MOST_TIMEOUTS = 2
_MOST_SUSPECTS = 8
_SECONDS_TO_TELL = 30.0


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """How the task of one item ended: with a value, or with an error.

    Parameters
    ----------
    item : Item
    value : Value or None
    error : Exception or None
        None if it went well.
    """

    item: Item
    value: Value | None
    error: BaseException | None


def run_tasks(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    waits: Sequence[float] = WAITS,
    timeout: float | None = None,
    may_pass: Callable[[BaseException], bool] = lambda _: False,
    should_stop: Callable[[], bool] = lambda: False,
    way_on: str = WAY_ON,
) -> Generator[Outcome[Item, Value], None, None]:
    """Call a function on each item on the cluster's workers, and yield how each call ended.

    The function travels to each worker once and stays there, so that what it opens or loads is kept
    between items. Only a few tasks a thread are known to the scheduler at any time: its memory and
    the driver's do not grow with the number of items. Workers that join later are used. Where many
    take less than 50 ms, they share tasks of about 0.1 s, and each ends for itself all the same:
    one that fails, hangs or kills its worker there is called once more, as a task of its own.

    An item whose workers died, as often as the scheduler allows, may be innocent: another may have
    killed them. Such items are tried once more at the end, one at a time, with nothing beside them.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Picklable, from an installed module.
    items : iterable
        Picklable and small; read as tasks end.
    waits : sequence of float
        Seconds to wait before each further attempt at an item whose errors may pass; others go on
        meanwhile.
    timeout : float or None
        Seconds that a call may take. One that takes longer costs its worker process, which a nanny
        replaces, and is tried once more.
    may_pass : callable
        Whether an error is worth another attempt.
    should_stop : callable
        Asked several times a second; when true, tasks are cancelled and the iterator ends.
    way_on : str
        What is kept, and how to go on, where the cluster is lost.

    Yields
    ------
    Outcome
        In the order in which tasks end. Errors are the function's own, or `TaskTimeoutError`, or
        `WorkerDiedError`.

    Raises
    ------
    ClusterLostError
        When the scheduler is gone.
    """
    job = f"isosr-{uuid.uuid4().hex}"
    _register(client, HeldFunction(job, function, timeout), way_on)
    flight: Flight[Item] = Flight(client, job, way_on)
    agenda = _Agenda(items, waits, timeout, may_pass)
    try:
        while not should_stop():
            flight.submit(agenda.next(flight))
            if not flight.running and not agenda.waiting:
                return
            for trial, value, error in flight.ended():
                if error is None or not agenda.again(trial, error):
                    yield Outcome(trial.item, value, _explained(error, timeout))
    finally:
        # Where workers are gone already, there is nothing left to tidy up.
        with suppress(OSError, ClosedClientError):
            client.cancel(list(flight.running))
            within(_SECONDS_TO_TELL, lambda: client.unregister_worker_plugin(job))


def _register(client: Client, job: HeldFunction, way_on: str) -> None:
    """Give a job to the workers; one that dies at this moment fails the call for all."""
    reason: OSError | None = None
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            within(_SECONDS_TO_TELL, lambda: client.register_plugin(job, name=job.name))
        except OSError as error:
            reason = error
        else:
            return
    raise ClusterLostError(
        f"the cluster is lost (workers do not take the job: {reason}); start it again; {way_on}"
    ) from reason


class _Agenda(Generic[Item]):
    """What is to be tried next: items, those that wait for another attempt, and suspects."""

    def __init__(
        self,
        items: Iterable[Item],
        waits: Sequence[float],
        timeout: float | None,
        may_pass: Callable[[BaseException], bool],
    ) -> None:
        self._new = (Trial(item) for item in items)
        self._waits, self._timeout, self._may_pass = waits, timeout, may_pass
        self._order = itertools.count()
        self._later: list[tuple[float, int, Trial[Item]]] = []
        self._suspects: deque[Trial[Item]] = deque()
        self._quarantine = False

    @property
    def waiting(self) -> bool:
        """Whether items that were tried are to be tried again."""
        return bool(self._later or self._suspects)

    def next(self, flight: Flight[Item]) -> list[Trial[Item]]:
        """Return what is to be submitted now."""
        now = time.monotonic()
        taken: list[Trial[Item]] = []
        if not self._quarantine:
            while self._later and self._later[0][0] <= now:
                taken.append(heapq.heappop(self._later)[-1])
            # Where all fails, no more is begun than can be tried again.
            room = flight.capacity - max(flight.count + len(taken), len(self._later))
            taken += itertools.islice(self._new, max(0, room))
        if not taken and not flight.running and (self._quarantine or not self._later):
            if self._suspects:
                self._quarantine = True
                taken = [self._suspects.popleft()]
            elif self._quarantine:
                self._quarantine = False
                return self.next(flight)
        return [replace(trial, begun=now) for trial in taken]

    def again(self, trial: Trial[Item], error: BaseException) -> bool:
        """Decide whether an item is tried again, and remember it then."""
        if isinstance(error, NotDoneError):
            self._wait(trial, ())
            return True
        if isinstance(error, KilledWorker):
            return self._suspect(trial)
        if isinstance(error, TaskTimeoutError):
            if trial.timeouts + 1 < _MOST_TIMEOUTS:
                self._wait(replace(trial, timeouts=trial.timeouts + 1), self._waits[:1])
                return True
            return False
        if trial.errors < len(self._waits) and self._may_pass(error):
            self._wait(replace(trial, errors=trial.errors + 1), self._waits[trial.errors :])
            return True
        return False

    def _wait(self, trial: Trial[Item], waits: Sequence[float]) -> None:
        # Not all at once, where they have met the same trouble at the same time.
        seconds = waits[0] * random.uniform(1 - _JITTER, 1 + _JITTER) if waits else 0.0  # noqa: S311
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), trial))

    def _suspect(self, trial: Trial[Item]) -> bool:
        if trial.alone or _hung(trial, self._timeout):
            return False
        self._suspects.append(replace(trial, alone=True))
        self._quarantine = self._quarantine or len(self._suspects) >= _MOST_SUSPECTS
        return True


def _hung(trial: Trial[Any], timeout: float | None) -> bool:
    """Tell whether the watchdog has ended a task's workers, without a chance to say so."""
    return timeout is not None and time.monotonic() - trial.begun > _MOST_TIMEOUTS * timeout


def _explained(error: BaseException | None, timeout: float | None) -> BaseException | None:
    if not isinstance(error, KilledWorker):
        return error
    slow = "" if timeout is None else f", or it took longer than the limit of {timeout:g} s"
    return WorkerDiedError(
        "the worker process died each time that it was tried, the last times with nothing beside "
        f"it: most often memory runs out{slow}; give fewer --workers or smaller regions, and look "
        "into the log of the workers"
    )
