"""Runs one function over very many items, with a bounded number of tasks in flight."""

from __future__ import annotations

import itertools
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import Client, Future, WorkerPlugin, get_worker
from distributed.client import ClosedClientError

from isosr_cluster.errors import ClusterLostError

Item = TypeVar("Item")
Value = TypeVar("Value")

_TASKS_PER_THREAD = 2
"""One that runs and one that waits, so that no worker is idle while the driver thinks."""

_LOST = "the cluster is lost ({}); what is done is kept: start it again, then go on with --resume"
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_COUNTS = 2.0


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
        self._counted = -_SECONDS_BETWEEN_COUNTS
        self._capacity = 0
        self.running: dict[Future, tuple[Item, int]] = {}

    @property
    def room(self) -> int:
        """How many more tasks the workers should be given; looks for new workers at times."""
        if time.monotonic() - self._counted >= _SECONDS_BETWEEN_COUNTS:
            threads = sum(self._client.nthreads().values())
            self._capacity = _TASKS_PER_THREAD * max(1, threads)
            self._counted = time.monotonic()
        return max(0, self._capacity - len(self.running))

    def submit(self, item: Item, attempt: int) -> None:
        future = self._client.submit(_call, self._job, item, pure=False)
        self.running[future] = item, attempt
        future.add_done_callback(self._ended.put)

    def next_ended(self) -> Future | None:
        """Return a task that has ended, None if there was none for a moment."""
        try:
            future = self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            if self._client.status != "running":
                raise ClusterLostError(_LOST.format("the scheduler does not answer")) from None
            return None
        if future.status not in ("finished", "error"):
            raise ClusterLostError(_LOST.format(f"a task was {future.status}"))
        return future


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
            for item in itertools.islice(waiting, flight.room):
                flight.submit(item, 1)
            if not flight.running:
                return
            future = flight.next_ended()
            if future is None:
                continue
            item, attempt = flight.running.pop(future)
            error = future.exception()
            if error is not None and attempt < attempts and may_pass(error):
                flight.submit(item, attempt + 1)
                continue
            value = None if error is not None else future.result()
            future.release()
            yield Outcome(item, value, error)
    finally:
        # Where workers are gone already, there is nothing left to tidy up.
        with suppress(OSError, ClosedClientError):
            client.cancel(list(flight.running))
            client.unregister_worker_plugin(job)
