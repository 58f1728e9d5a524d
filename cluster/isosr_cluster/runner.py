"""Runs one function over very many items, with a bounded number of tasks in flight."""

from __future__ import annotations

import asyncio
import itertools
import math
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import Client, Future, WorkerPlugin, get_worker
from distributed.client import ClosedClientError

from isosr_cluster.errors import ClusterLostError

Item = TypeVar("Item")
Value = TypeVar("Value")

_FEWEST_PER_THREAD = 2
"""One that runs and one that waits, so that no worker is idle while the driver thinks."""

_MOST_PER_THREAD = 16
"""Of short tasks, a thread is given what it does in a second: they are asked for together."""

_LOST = "the cluster is lost ({}); what is done is kept: start it again, then go on with --resume"
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_COUNTS = 2.0
_SECONDS_FOR_RESULTS = 5.0


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


class _Job(WorkerPlugin):  # type: ignore[misc] # distributed is untyped
    """Holds the function on every worker, those that join later too."""

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        self.name = name
        self.function = function


def _call(job: str, item: Any) -> Any:
    return get_worker().plugins[job].function(item)


class _Flight(Generic[Item]):
    """The tasks that the scheduler knows of, and those of them that have ended."""

    def __init__(self, client: Client, job: str) -> None:
        self._client, self._job = client, job
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._counted = -math.inf
        self._capacity = 0
        self._ended_since = 0
        self.running: dict[Future, tuple[Item, int]] = {}

    @property
    def room(self) -> int:
        """How many more tasks the workers should be given; looks for new workers at times."""
        elapsed = time.monotonic() - self._counted
        if elapsed >= _SECONDS_BETWEEN_COUNTS:
            threads = max(1, sum(self._client.nthreads().values()))
            a_second = round(self._ended_since / elapsed / threads)
            per_thread = min(max(_FEWEST_PER_THREAD, a_second), _MOST_PER_THREAD)
            self._capacity = per_thread * threads
            self._counted, self._ended_since = time.monotonic(), 0
        return max(0, self._capacity - len(self.running))

    def submit(self, items: Sequence[Item], attempt: int = 1) -> None:
        if not items:
            return
        jobs = [self._job] * len(items)
        futures = self._client.map(_call, jobs, items, pure=False, key="isosr")
        for item, future in zip(items, futures, strict=True):
            self.running[future] = item, attempt
            self._watch(future)

    def _watch(self, future: Future) -> None:
        future.add_done_callback(self._ended.put)

    def ended(self) -> Iterator[tuple[Outcome[Item, Any], int]]:
        """Yield how the tasks that have ended meanwhile did, and at which attempt.

        Results come together: to ask for each would take longer than many a small task.
        """
        futures = self._ended_meanwhile()
        self._ended_since += len(futures)
        finished = [future for future in futures if future.status == "finished"]
        values = self._values(finished)
        for future in futures:
            if future in finished and future not in values:
                # Its worker has died with the result: it is computed again, or will fail.
                self._watch(future)
                continue
            item, attempt = self.running.pop(future)
            error = None if future in values else future.exception()
            future.release()
            yield Outcome(item, values.get(future), error), attempt

    def _values(self, finished: list[Future]) -> dict[Future, Any]:
        """Return the results of tasks; none when they can't be had all together just now."""
        loop = self._client.loop.asyncio_loop
        gathering = asyncio.run_coroutine_threadsafe(
            self._client.gather(finished, asynchronous=True), loop
        )
        try:
            return dict(zip(finished, gathering.result(_SECONDS_FOR_RESULTS), strict=True))
        except Exception:  # noqa: BLE001 - whatever a task raises when it is computed again
            gathering.cancel()
            return {}

    def _ended_meanwhile(self) -> list[Future]:
        """Wait a moment for a task to end, and return all that have."""
        futures = []
        try:
            futures.append(self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS))
            while True:
                futures.append(self._ended.get_nowait())
        except queue.Empty:
            if self._client.status != "running":
                raise ClusterLostError(_LOST.format("the scheduler does not answer")) from None
        for future in futures:
            if future.status == "cancelled":
                raise ClusterLostError(_LOST.format("a task was cancelled"))
        ended = [future for future in futures if future.status in ("finished", "error")]
        for future in set(futures).difference(ended):
            self._watch(future)  # its worker died: the scheduler has it computed again
        return ended


def run_tasks(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    attempts: int = 3,
    may_pass: Callable[[BaseException], bool] = lambda _: False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome[Item, Value]]:
    """Call a function on each item on the cluster's workers, and yield how each call ended.

    The function travels to each worker once and stays there, so that what it opens or loads is kept
    between items. Only a few tasks a thread are known to the scheduler at any time: its memory and
    the driver's do not grow with the number of items. Workers that join later are used.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Picklable, from an installed module.
    items : iterable
        Picklable and small; read as tasks end.
    attempts : int
        How often an item is tried when its errors may pass.
    may_pass : callable
        Whether an error is worth another attempt.
    should_stop : callable
        Asked several times a second; when true, tasks are cancelled and the iterator ends.

    Yields
    ------
    Outcome
        In the order in which tasks end.

    Raises
    ------
    ClusterLostError
        When the scheduler is gone.
    """
    job = f"isosr-{uuid.uuid4().hex}"
    client.register_plugin(_Job(job, function), name=job)
    waiting = iter(items)
    flight: _Flight[Item] = _Flight(client, job)
    try:
        while not should_stop():
            flight.submit(list(itertools.islice(waiting, flight.room)))
            if not flight.running:
                return
            for outcome, attempt in flight.ended():
                error = outcome.error
                if error is not None and attempt < attempts and may_pass(error):
                    flight.submit([outcome.item], attempt + 1)
                else:
                    yield outcome
    finally:
        # Where workers are gone already, there is nothing left to tidy up.
        with suppress(OSError, ClosedClientError):
            client.cancel(list(flight.running))
            client.unregister_worker_plugin(job)
