"""Signals that ask a step to stop: Ctrl-C, a terminal that closes, a scheduler or a shutdown."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.outlets import drop_lost_outlets

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a step to stop."""

_Handler = Callable[[int, FrameType | None], None]

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
        once, unless it is that of a terminal that closes: nobody is there to be impatient.
    """
    first: float | None = None

    def request(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            told()
        elif number != signal.SIGHUP and time.monotonic() - first >= _SECONDS_OF_ONE_REQUEST:
            raise KeyboardInterrupt

    # Python lets only the main thread handle signals; elsewhere nobody could ask.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with handling(request):
        yield lambda: first is not None


@contextmanager
def noticing_hangup() -> Iterator[Callable[[], bool]]:
    """Take the end of a terminal for what it is, apart from other signals.

    Within `stop_requests`, where what was begun goes on without whoever looks at it.

    Yields
    ------
    callable
        Tells whether the terminal has closed since.
    """
    is_lost = False

    def lose(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_lost
        is_lost = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with handling(lose, [signal.SIGHUP]):
        yield lambda: is_lost


@contextmanager
def handling(handler: _Handler, signals: Collection[signal.Signals] = STOPPING) -> Iterator[None]:
    """Have the signals that ask a step to stop handled; as before at the end.

    Parameters
    ----------
    handler : callable
        As `signal.signal` takes it.
    signals : collection of signal.Signals
        Which of them.
    """
    own = _mindful(handler)
    previous = {number: signal.signal(number, own) for number in _heard() if number in signals}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def interrupt_on_terminate() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in _heard():
        if number != signal.SIGINT:
            signal.signal(number, _mindful(interrupt))


def is_interruption(error: BaseException) -> bool:
    """Tell whether an error is an interruption, or what a library has made of one.

    A signal that comes while a class is made, such as in an import, ends in a RuntimeError. What
    has been told as an `InterruptedRunError` is none any more.

    Parameters
    ----------
    error : BaseException
    """
    if isinstance(error, InterruptedRunError):
        return False
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause is not None


def _mindful(handler: _Handler) -> _Handler:
    """Return a handler that does not speak to a terminal that is gone."""

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            drop_lost_outlets()
        handler(number, frame)

    return handle


def _heard() -> list[signal.Signals]:
    """Return the signals to handle: under nohup, a terminal that closes is to be ignored."""
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOPPING if not (is_ignored and number == signal.SIGHUP)]
