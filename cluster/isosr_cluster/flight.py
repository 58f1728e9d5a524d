"""The tasks that the scheduler knows of, and how those that have ended did."""

from __future__ import annotations

import asyncio
import math
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from distributed import Client, Future
from distributed.client import ClosedClientError

from isosr_cluster.bundles import Bundle, Done, Pace
from isosr_cluster.errors import ClusterLostError, NotDoneError
from isosr_cluster.held_function import call
from isosr_cluster.patience import patience

Item = TypeVar("Item")

_LOST = "the cluster is lost ({}); start it again; {}"
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_COUNTS = 2.0
_SECONDS_FOR_RESULTS = 5.0
_SECONDS_WITHOUT_WORKERS = 600.0
_SECONDS_BEFORE_ASKING_AGAIN = 1.0


@dataclass(frozen=True)
class Trial(Generic[Item]):
    """One attempt at an item.

    Parameters
    ----------
    item : Item
    errors, timeouts : int
        How many attempts have failed before.
    alone : bool
        Whether it runs with nothing else on the cluster, as its workers have died before.
    split_off : bool
        Whether it is to be a task of its own, as it has failed in a bundle, or all of that has.
    begun : float
        When it was submitted, by the monotonic clock.
    """

    item: Item
    errors: int = 0
    timeouts: int = 0
    alone: bool = False
    split_off: bool = False
    begun: float = 0.0

    @property
    def is_single(self) -> bool:
        """Whether it must be a task of its own: something has gone wrong with it before."""
        return self.split_off or self.alone or self.errors + self.timeouts > 0


class Flight(Generic[Item]):
    """The tasks that the scheduler knows of, and those of them that have ended.

    Parameters
    ----------
    client : distributed.Client
    job : str
        Name of a `HeldFunction` that the workers have.
    way_on : str
        What is kept, and how to go on, where the cluster is lost.

    Attributes
    ----------
    running : dict of Future to list of Trial
        One, or a few that are short.
    count : int
        How many trials these are.
    """

    def __init__(self, client: Client, job: str, way_on: str) -> None:
        self._client, self._job, self._way_on = client, job, way_on
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._counted = -math.inf
        self._capacity = 0
        self._pace = Pace()
        self._last_seen = time.monotonic()
        self.running: dict[Future, list[Trial[Item]]] = {}
        self.count = 0

    @property
    def capacity(self) -> int:
        """How many items the workers should be given; looks for new workers at times."""
        elapsed = time.monotonic() - self._counted
        if elapsed >= _SECONDS_BETWEEN_COUNTS:
            threads = max(1, self._threads())
            self._pace.set(threads)
            self._capacity = self._pace.per_thread * threads
            self._counted = time.monotonic()
        return self._capacity

    def _threads(self) -> int:
        """Return how many tasks the workers can run at once; 0 for a while is no trouble."""
        threads = sum(self._client.nthreads().values())
        now = time.monotonic()
        if threads:
            self._last_seen = now
        elif now - self._last_seen > patience(self._client, _SECONDS_WITHOUT_WORKERS):
            raise self._lost(f"no worker has been there for {_SECONDS_WITHOUT_WORKERS:g} s")
        return int(threads)

    def _lost(self, reason: str) -> ClusterLostError:
        return ClusterLostError(_LOST.format(reason, self._way_on))

    def submit(self, trials: Sequence[Trial[Item]]) -> None:
        """Give items to the cluster: those that are short in bundles."""
        if not trials:
            return
        self.count += len(trials)
        together = [trial for trial in trials if not trial.is_single]
        parts = [[trial] for trial in trials if trial.is_single]
        parts += self._bundled(together)
        jobs = [self._job] * len(parts)
        bundles = [Bundle(tuple(trial.item for trial in part)) for part in parts]
        try:
            futures = self._client.map(call, jobs, bundles, pure=False, key="isosr")
        except ClosedClientError as error:
            raise self._lost("the scheduler does not answer") from error
        for part, future in zip(parts, futures, strict=True):
            self.running[future] = part
            self._watch(future)

    def _bundled(self, trials: list[Trial[Item]]) -> list[list[Trial[Item]]]:
        size = self._pace.size
        if self.count < self._capacity:
            # There are no more: they are shared out among all threads.
            threads = self._capacity // self._pace.per_thread
            size = max(1, min(size, len(trials) // threads))
        return [trials[begin : begin + size] for begin in range(0, len(trials), size)]

    def _watch(self, future: Future) -> None:
        future.add_done_callback(self._ended.put)

    def ended(self) -> Iterator[tuple[Trial[Item], Any, BaseException | None]]:
        """Wait a moment, and yield the values or errors of the items that have ended meanwhile.

        Results come together: to ask for each would take longer than many a small task. The error
        of what a task has left undone is a `NotDoneError`.

        Raises
        ------
        ClusterLostError
            When the scheduler is gone.
        """
        futures = self._ended_meanwhile()
        # Seen once: the result of one whose worker dies now is no longer finished.
        finished = {future for future in futures if future.status == "finished"}
        values = self._values(list(finished))
        for future in futures:
            if future in finished and future not in values:
                # Its worker died with the result, or is stopped: it will be computed again.
                self._client.loop.add_callback(self._watch_later, future)
                continue
            trials, done = self.running.pop(future), values.get(future)
            error = None if done is not None else future.exception()
            future.release()
            self.count -= len(trials)
            if done is not None:
                self._pace.ended(len(done.values), done.seconds)
            yield from _each(trials, done, error)

    def _watch_later(self, future: Future) -> None:
        self._client.loop.call_later(_SECONDS_BEFORE_ASKING_AGAIN, self._watch, future)

    def _values(self, finished: list[Future]) -> dict[Future, Done[Any]]:
        """Return the results of tasks, as far as they can be had just now."""
        if not finished:
            return {}
        loop = self._client.loop.asyncio_loop
        try:
            return asyncio.run_coroutine_threadsafe(self._gathered(finished), loop).result()
        except Exception as error:
            raise self._lost("the scheduler does not answer") from error

    async def _gathered(self, finished: list[Future]) -> dict[Future, Done[Any]]:
        gathering = self._client.gather(finished, asynchronous=True)
        try:
            values = await asyncio.wait_for(gathering, _SECONDS_FOR_RESULTS)
        except Exception:  # noqa: BLE001 - whatever a task raises when it is computed again
            # One that can't be had must not keep the others back.
            each = (asyncio.wait_for(f._result(), _SECONDS_FOR_RESULTS) for f in finished)
            values = await asyncio.gather(*each, return_exceptions=True)
        found = zip(finished, values, strict=True)
        return {future: value for future, value in found if not isinstance(value, BaseException)}

    def _ended_meanwhile(self) -> list[Future]:
        """Wait a moment for a task to end, and return all that have."""
        futures = []
        try:
            futures.append(self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS))
            while True:
                futures.append(self._ended.get_nowait())
        except queue.Empty:
            if self._client.status != "running":
                raise self._lost("the scheduler does not answer") from None
        for future in futures:
            if future.status == "cancelled":
                raise self._lost("a task was cancelled")
        ended = [future for future in futures if future.status in ("finished", "error")]
        for future in set(futures).difference(ended):
            self._watch(future)  # its worker died: the scheduler has it computed again
        return ended


def _each(
    trials: list[Trial[Item]], done: Done[Any] | None, error: BaseException | None
) -> Iterator[tuple[Trial[Item], Any, BaseException | None]]:
    """Yield how each item of a task has ended."""
    if done is None and len(trials) == 1:
        yield trials[0], None, error
        return
    values = done.values if done is not None else []
    for trial, value in zip(trials, values, strict=False):
        yield trial, value, None
    for number, trial in enumerate(trials[len(values) :]):
        # Which of them has killed a worker, or hangs, or fails, is told when each runs by itself.
        at_fault = done is None or (done.failed and number == 0)
        yield replace(trial, split_off=at_fault), None, NotDoneError()
