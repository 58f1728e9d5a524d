"""Runs one function over very many items, with a bounded number of tasks in flight."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import Client, Future, WorkerPlugin, as_completed, get_worker

Item = TypeVar("Item")
Value = TypeVar("Value")

_TASKS_PER_THREAD = 2
"""One that runs and one that waits, so that no worker is idle while the driver thinks."""


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


def run_tasks(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    attempts: int = 3,
    may_pass: Callable[[BaseException], bool] = lambda _: False,
) -> Iterator[Outcome[Item, Value]]:
    """Call a function on each item on the cluster's workers, and yield how each call ended.

    The function travels to each worker once and stays there, so that what it opens or loads is kept
    between items. Only a few tasks a thread are known to the scheduler at any time: its memory and
    the driver's do not grow with the number of items.

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

    Yields
    ------
    Outcome
        In the order in which tasks end.
    """
    job = f"isosr-{uuid.uuid4().hex}"
    client.register_plugin(_Job(job, function), name=job)
    waiting = ((item, 1) for item in items)
    running: dict[Future, tuple[Item, int]] = {}

    def submit(item: Item, attempt: int) -> Future:
        future = client.submit(_call, job, item, pure=False)
        running[future] = item, attempt
        return future

    threads = max(1, sum(client.nthreads().values()))
    first = [submit(*w) for w in itertools.islice(waiting, _TASKS_PER_THREAD * threads)]
    done = as_completed(first)
    try:
        for future in done:
            item, attempt = running.pop(future)
            error = future.exception()
            if error is not None and attempt < attempts and may_pass(error):
                done.add(submit(item, attempt + 1))
                continue
            value = None if error is not None else future.result()
            future.release()
            following = next(waiting, None)
            if following is not None:
                done.add(submit(*following))
            yield Outcome(item, value, error)
    finally:
        # Where workers are gone already, there is nothing left to tidy up.
        with suppress(OSError):
            client.cancel(list(running))
            client.unregister_worker_plugin(job)
