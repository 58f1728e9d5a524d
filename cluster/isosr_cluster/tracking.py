"""Python's own process that tracks what processes share, kept from ending with a terminal."""

from __future__ import annotations

import signal
from multiprocessing import resource_tracker


def start_tracker() -> None:
    """Start the resource tracker of `multiprocessing`, so that it outlives a terminal's end.

    It ignores Ctrl-C and SIGTERM by itself. Killed by SIGHUP, it would be started anew by what
    this process does to save its work, and complain of what it does not know.
    """
    # A process begins with the mask of the one that starts it, and it lifts none of SIGHUP.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
