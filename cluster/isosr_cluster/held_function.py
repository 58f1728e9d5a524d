"""A function that workers hold for a run of tasks, and a watchdog over each of its calls."""

from __future__ import annotations

import faulthandler
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from distributed import WorkerPlugin, get_worker
from distributed.threadpoolexecutor import ThreadPoolExecutor

from isosr_cluster.bundles import Bundle, Done, do
from isosr_cluster.draining import walltime
from isosr_cluster.errors import TaskTimeoutError

SECONDS_OF_GRACE = 5.0
"""After its limit, a task's process lives so long, in which the driver is told why it ends."""

_SECONDS_TOO_EARLY = 1.0
"""So much sooner the process may end: to set the timer for each short call takes longer than it."""


class HeldFunction(WorkerPlugin):  # type: ignore[misc] # distributed is untyped
    """Holds a function on every worker, those that join later too.

    Parameters
    ----------
    name : str
    function : callable
    limit : float or None
        Seconds that a call may take.
    """

    def __init__(
        self, name: str, function: Callable[[Any], Any], limit: float | None = None
    ) -> None:
        self.name = name
        self.function = function
        self.limit = limit

    def setup(self, worker: Any) -> None:
        """Prepare threads that can be given up; they do not keep the process from ending."""
        if self.limit is not None:
            self._threads = ThreadPoolExecutor(worker.state.nthreads)

    def teardown(self, worker: Any) -> None:
        """Let idle threads end."""
        if self.limit is not None:
            self._threads.shutdown(wait=False)

    def __call__(self, bundle: Bundle[Any]) -> Done[Any]:
        """Call the function on items of a bundle, as long as they can end before this process must.

        What takes too long is given up, and this process ends.
        """
        if self.limit is None:
            return do(self._one, bundle)
        return self._watched(bundle, self.limit)

    def _one(self, item: Any) -> Any:
        with walltime.task():
            return self.function(item)

    def _watched(self, bundle: Bundle[Any], limit: float) -> Done[Any]:
        if _watchdog.ending:
            # The scheduler gives the task to another worker when this one is gone.
            time.sleep(2 * SECONDS_OF_GRACE)
        with _watchdog.watching(limit) as watch:

            def one(item: Any) -> Any:
                if not watch.renew():
                    raise _too_long(limit)
                return self._one(item)

            # In the context in which Dask tells which worker this is.
            called = self._threads.submit(copy_context().run, do, one, bundle)
            while not called.done():
                if watch.is_over():
                    raise _too_long(limit)
                wait([called], watch.left)
            done: Done[Any] = called.result()
            return done


def _too_long(limit: float) -> TaskTimeoutError:
    return TaskTimeoutError(
        f"it took longer than the limit of {limit:g} s, so its worker was ended; "
        "the worker's log has a traceback that tells where it hung"
    )


def call(job: str, bundle: Bundle[Any]) -> Done[Any]:
    """Call the function of a job on some items; this is what a task is."""
    done: Done[Any] = get_worker().plugins[job](bundle)
    return done


class _Watchdog:
    """Ends the process at the earliest deadline of what runs in it.

    The timer is faulthandler's: it goes off even while an extension holds the interpreter's lock,
    and leaves a traceback of all threads.

    Attributes
    ----------
    lock : RLock
        Held while a deadline is changed.
    ending : bool
        Whether something was given up, so that the process ends soon.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._numbers = itertools.count()
        self._deadlines: dict[int, float] = {}
        self._set_to: float | None = None
        self.ending = False

    @contextmanager
    def watching(self, limit: float) -> Iterator[_Watch]:
        """Watch what is done in the context, each part of which may take so many seconds."""
        watch = _Watch(self, next(self._numbers), limit)
        watch.renew()
        try:
            yield watch
        finally:
            if not watch.given_up:
                self.set(watch.number, None)

    def set(self, number: int, deadline: float | None) -> None:
        """Set the deadline of a watch, or forget it."""
        with self.lock:
            if deadline is not None:
                self._deadlines[number] = deadline
            else:
                self._deadlines.pop(number, None)
            self._set_timer()

    def _set_timer(self) -> None:
        earliest = min(self._deadlines.values(), default=None)
        if earliest is None:
            faulthandler.cancel_dump_traceback_later()
        elif self._set_to is None or not 0 <= earliest - self._set_to < _SECONDS_TOO_EARLY:
            faulthandler.dump_traceback_later(max(1e-3, earliest - time.monotonic()), exit=True)
        else:
            return
        self._set_to = earliest


class _Watch:
    """What is left of the time of what is done in one thread, part after part.

    Attributes
    ----------
    given_up : bool
        Whether it took too long: its deadline stands then, and the process ends.
    """

    def __init__(self, watchdog: _Watchdog, number: int, limit: float) -> None:
        self._watchdog, self.number, self._limit = watchdog, number, limit
        self._over = 0.0
        self.given_up = False

    @property
    def left(self) -> float:
        """Seconds that the part may still take, 0 at least."""
        return max(0.0, self._over - time.monotonic())

    def renew(self) -> bool:
        """Begin another part, unless an earlier one was given up."""
        with self._watchdog.lock:
            if not self.given_up:
                self._over = time.monotonic() + self._limit
                self._watchdog.set(self.number, self._over + SECONDS_OF_GRACE)
            return not self.given_up

    def is_over(self) -> bool:
        """Tell whether a part has taken too long, and give it up then."""
        with self._watchdog.lock:
            if not self.left:
                self._watchdog.ending = self.given_up = True
            return self.given_up


_watchdog = _Watchdog()
