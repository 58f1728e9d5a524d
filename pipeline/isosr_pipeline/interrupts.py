"""Signals that ask a step to stop: Ctrl-C, and the SIGTERM of a scheduler or a shutdown."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_OF_ONE_REQUEST = 1.0
"""A scheduler signals every process of a job, and the job's script passes its own signal on."""


@contextmanager
def stop_requests(
    told: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], bool]]:
    """Collect requests to stop instead of being stopped in the middle of something.

    Parameters
    ----------
    told : callable
        Called when a first signal comes.

    Yields
    ------
    callable
        Tells whether a signal has come since. A second one, a second later or more, interrupts at
        once.
    """
    first: float | None = None

    def request(_number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            told()
        elif time.monotonic() - first >= _SECONDS_OF_ONE_REQUEST:
            raise KeyboardInterrupt

    # Python lets only the main thread handle signals; elsewhere nobody could ask.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield lambda: first is not None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt_on_terminate() -> None:
    """Make SIGTERM raise KeyboardInterrupt in the main thread, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
