"""Where this process says what it does: stdout and stderr, whose other end may go away."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import suppress


def drop_lost_outlets() -> None:
    """Let go nowhere what would go to a terminal or into a pipe that nobody is at any more.

    Writing there fails, which must not keep anybody from saving what is done, nor change the exit
    code when what is left in buffers is written at the end.
    """
    for stream in (sys.__stdout__, sys.__stderr__):
        # None where a process was begun without them.
        if stream is None:
            continue
        with suppress(OSError, ValueError):
            descriptor = stream.fileno()
            if _is_lost(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _is_lost(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode):
        # A terminal that is gone is none any more, but still a device.
        return not os.isatty(descriptor)
    if stat.S_ISFIFO(mode):
        asked = select.poll()
        asked.register(descriptor, select.POLLOUT)
        return any(events & select.POLLERR for _, events in asked.poll(0))
    return False
