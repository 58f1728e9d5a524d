"""Workers that end at a known time begin nothing that they can't finish, and leave before it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distributed import Reschedule, get_worker
from distributed.core import Status

ENDS_AT = "ISOSR_ENDS_AT"
"""Variable of the environment: Unix time at which this process will be ended."""

LONGEST = "ISOSR_LONGEST"
"""Variable of the environment: file in which a process finds what those before it measured."""

_MORE_THAN_LONGEST = 1.25
_SECONDS_TO_LEAVE = 10.0
_SECONDS_BETWEEN_LOOKS = 0.2


class Walltime:
    """Measures the tasks of this process, and tells when there is no time for another one.

    Parameters
    ----------
    ends_at : float or None
        Unix time; None: nobody ends this process.
    kept : Path or None
        File that keeps the longest task for the process that takes the place of this one; None:
        nothing is kept.

    Attributes
    ----------
    longest : float
        Seconds that the longest task took, here or in a process before.
    """

    def __init__(self, ends_at: float | None, kept: Path | None = None) -> None:
        self._ends_at, self._kept = ends_at, kept
        self.longest = self._read()
        self._lock = threading.Lock()
        self._leaving = False

    @contextmanager
    def task(self) -> Iterator[None]:
        """Measure a task, if there is time for it.

        Raises
        ------
        Reschedule
            When there is not: another worker is given the task, and this one leaves as soon as the
            tasks that run in it have ended.
        """
        begun = time.monotonic()
        if self._ends_at is not None and not self._has_time(self._ends_at):
            self._leave()
            raise Reschedule
        try:
            yield
        finally:
            seconds = time.monotonic() - begun
            with self._lock:
                if seconds > self.longest:
                    self.longest = seconds
                    self._write()

    def _read(self) -> float:
        # What can't be read was never written, or its nanny is gone: it is measured anew.
        with suppress(OSError, ValueError):
            if self._kept is not None:
                return float(self._kept.read_text(encoding="ascii"))
        return 0.0

    def _write(self) -> None:
        with suppress(OSError):
            if self._kept is not None:
                self._kept.write_text(f"{self.longest:.3f}", encoding="ascii")

    def _has_time(self, ends_at: float) -> bool:
        needed = _MORE_THAN_LONGEST * self.longest + _SECONDS_TO_LEAVE
        return time.time() + needed < ends_at

    def _leave(self) -> None:
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
        worker = get_worker()
        worker.loop.add_callback(_leave, worker)


async def _leave(worker: Any) -> None:
    """Take no more tasks, end those that run, and go."""
    worker.status = Status.paused
    while worker.state.executing_count:
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
    # Its nanny goes too, and with the last one the job.
    await worker.close_gracefully(restart=False, reason="the walltime is near")


def _known_end() -> float | None:
    text = os.environ.get(ENDS_AT, "")
    return float(text) if text.replace(".", "", 1).isdigit() else None


def _keeping() -> Path | None:
    found = os.environ.get(LONGEST)
    return Path(found) if found else None


walltime = Walltime(_known_end(), _keeping())
"""Of this process."""
