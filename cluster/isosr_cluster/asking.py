"""Asks all workers of a cluster, while they may die and come back."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distributed import Client

from isosr_cluster.errors import ClusterLostError
from isosr_cluster.patience import patience

Value = TypeVar("Value")

_WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before further attempts at asking workers of which one died meanwhile."""

_SECONDS_FOR_A_WORKER = 120.0
_SECONDS_FOR_AN_ANSWER = 300.0
_SECONDS_BETWEEN_LOOKS = 0.2
_LOST = "the cluster is lost ({}); start it again, then give the same command again"


@dataclass(frozen=True)
class _Answer(Generic[Value]):
    """What a worker says: a value, or an error of the function itself."""

    value: Value | None
    error: Exception | None


def ask_all(client: Client, function: Callable[[], Value]) -> list[Value]:
    """Call a function on every worker at the same time, and return what each answers.

    When a worker dies meanwhile, all that are there then are asked again, a few times.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Picklable, from an installed module. It runs beside what else the worker does.

    Raises
    ------
    Exception
        What the function raised on a worker, as it is.
    ClusterLostError
        When workers die each time that they are asked, none is there, or the scheduler is gone.
    """
    reason = ""
    for wait in (0.0, *_WAITS):
        time.sleep(wait)
        addresses = list(workers_of(client))
        answers = _answers(client, function, addresses)
        given = [answer for answer in answers if isinstance(answer, _Answer)]
        for answer in given:
            if answer.error is not None:
                raise answer.error
        # Those whose worker is gone have none.
        if given and len(given) == len(answers):
            return [answer.value for answer in given]  # type: ignore[misc] # no error: a value
        reason = next((str(answer) for answer in answers if answer not in given), "no answer")
    raise ClusterLostError(
        f"the cluster is lost (workers died each of the {1 + len(_WAITS)} times that they were "
        f"asked: {reason}); most often memory runs out: give fewer --workers, and look into the "
        "log of the workers"
    )


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of each worker, by address; waits until there is one.

    Raises
    ------
    ClusterLostError
        When none comes, or the scheduler is gone.
    """
    begin = time.monotonic()
    while time.monotonic() - begin < patience(client, _SECONDS_FOR_A_WORKER):
        if client.status != "running":
            raise ClusterLostError(_LOST.format("the scheduler does not answer"))
        workers: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
        if workers:
            return workers
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise ClusterLostError(
        _LOST.format(f"no worker has been there for {_SECONDS_FOR_A_WORKER:g} s")
    )


def within(seconds: float, call: Callable[[], Value]) -> Value:
    """Call what Dask sends to all workers, and don't wait longer than so many seconds for it.

    A worker that dies at the wrong moment never answers, and Dask would wait for it without end.

    Parameters
    ----------
    seconds : float
    call : callable

    Raises
    ------
    TimeoutError
        When it takes longer; it goes on in the background.
    Exception
        What it raises.
    """
    ended: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((call(), None))
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"a worker did not answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _answers(client: Client, function: Callable[[], Value], addresses: list[str]) -> list[Any]:
    """Return the answer of each worker, or the error with which it went away."""
    try:
        found: dict[str, Any] = within(
            _SECONDS_FOR_AN_ANSWER,
            lambda: client.run(_answer, function, workers=addresses, on_error="return"),
        )
    except OSError as error:
        return [error]
    return list(found.values())


async def _answer(function: Callable[[], Value]) -> _Answer[Value]:
    """Call the function; runs on a worker.

    Its errors come as values: those of the network are OSErrors too.
    """
    try:
        # In a thread, for the worker must go on answering the scheduler.
        return _Answer(await asyncio.to_thread(function), None)
    except Exception as error:  # noqa: BLE001 - whatever it is, the driver decides
        return _Answer(None, _picklable(error))


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - pickling calls methods of the error
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
