"""What runs on a worker: the function of a job, and a watchdog over each of its calls."""

from __future__ import annotations

import faulthandler
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import WorkerPlugin, get_worker
from distributed.threadpoolexecutor import ThreadPoolExecutor

from isosr_cluster.draining import walltime
from isosr_cluster.errors import TaskTimeoutError

SECONDS_OF_GRACE = 5.0
"""After its limit, a task's process lives so long, in which the driver is told why it ends."""


class WorkerJob(WorkerPlugin):  # type: ignore[misc] # distributed is untyped
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

    def __call__(self, item: Any) -> Any:
        """Call the function, if it can end before this process must.

        What takes too long is given up, and this process ends.
        """
        with walltime.task():
            return self.function(item) if self.limit is None else self._watched(item, self.limit)

    def _watched(self, item: Any, limit: float) -> Any:
        if _watchdog.ending:
            # The scheduler gives the task to another worker when this one is gone.
            time.sleep(2 * SECONDS_OF_GRACE)
        with _watchdog.watching(limit + SECONDS_OF_GRACE) as give_up:
            called = self._threads.submit(self.function, item)
            try:
                return called.result(limit)
            except TimeoutError as error:
                if called.done():
                    raise
                give_up()
                raise TaskTimeoutError(
                    f"it took longer than the limit of {limit:g} s, so its worker was ended; "
                    "the worker's log has a traceback that tells where it hung"
                ) from error


def call(job: str, item: Any) -> Any:
    """Call the function of a job on an item; this is what a task is."""
    return get_worker().plugins[job](item)


class _Watchdog:
    """Ends the process at the earliest deadline of what runs in it.

    The timer is faulthandler's: it goes off even while an extension holds the interpreter's lock,
    and leaves a traceback of all threads.

    Attributes
    ----------
    ending : bool
        Whether something was given up, so that the process ends soon.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._deadlines: dict[int, float] = {}
        self._set_to: float | None = None
        self.ending = False

    @contextmanager
    def watching(self, seconds: float) -> Iterator[Callable[[], None]]:
        """Watch what is done in the context; call what it yields to let the deadline stand."""
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            self.ending = given_up = True

        with self._lock:
            number = next(self._numbers)
            self._deadlines[number] = time.monotonic() + seconds
            self._set()
        try:
            yield give_up
        finally:
            if not given_up:
                with self._lock:
                    del self._deadlines[number]
                    self._set()

    def _set(self) -> None:
        earliest = min(self._deadlines.values(), default=None)
        if earliest == self._set_to:
            return
        self._set_to = earliest
        if earliest is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            faulthandler.dump_traceback_later(max(1e-3, earliest - time.monotonic()), exit=True)


_watchdog = _Watchdog()
