"""Leading: one process leads a brain's work in the jobs of a site, and others can find it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import gethostname

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from isosr_pipeline.errors import BusyError
from isosr_pipeline.locking import passing_lock
from isosr_pipeline.paths import there_meanwhile

FILE = ".leader"
"""In a brain's folder of results, while a process leads the work on it from outside of a chain."""

_SAME_SECOND = 1.0
_TRIES = 5
_SECONDS_BETWEEN_TRIES = 0.1


class Leader(BaseModel):
    """The process that leads the work on a brain.

    Attributes
    ----------
    host : str
        Empty where it has not said yet who it is.
    pid : int
    began : float
        Unix time at which it was started, in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = ""
    pid: int = 0
    began: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "a process"

    def process(self) -> psutil.Process | None:
        """Return it, if it runs on this machine and can be seen from here."""
        if self.host != gethostname():
            return None
        with suppress(psutil.Error):
            found = psutil.Process(self.pid)
            # In a container, or after a restart, the number may be that of somebody else.
            if abs(found.create_time() - self.began) < _SAME_SECOND:
                return found
        return None


@contextmanager
def leading(output: Path) -> Iterator[None]:
    """Lead the work on a brain, with jobs that are replaced when they end.

    Parameters
    ----------
    output : Path
        The brain's folder of results; made if need be.

    Raises
    ------
    BusyError
        When another process leads it.
    OutputPathError
        When the folder can't be made, or its file system has no locks.
    """
    process = psutil.Process()
    me = Leader(host=gethostname(), pid=process.pid, began=process.create_time())
    other = find_leader(output)
    busy = (
        f"{output}: {other or 'another process'} leads the work on this brain in jobs of a site; "
        "wait for it, or stop it by isosr-pipeline cancel"
    )
    with there_meanwhile(output), ExitStack() as held:
        _enter(held, output, busy)
        (output / FILE).write_text(me.model_dump_json(), encoding="utf-8")
        yield


def _enter(held: ExitStack, output: Path, busy: str) -> None:
    """Take the lock; whoever only looks who leads holds it for a moment, too."""
    for _ in range(_TRIES):
        with suppress(BusyError):
            held.enter_context(passing_lock(output / FILE, output, busy))
            return
        if find_leader(output) is not None:
            break
        time.sleep(_SECONDS_BETWEEN_TRIES)
    held.enter_context(passing_lock(output / FILE, output, busy))


def find_leader(output: Path) -> Leader | None:
    """Return who leads the work on a brain from outside of a chain; None: nobody does.

    Parameters
    ----------
    output : Path
        The brain's folder of results.
    """
    # Where it can't be opened or locked, nobody could have locked it from here either.
    with suppress(OSError), (output / FILE).open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValidationError):
                return Leader.model_validate_json(os.pread(file.fileno(), 4096, 0))
            return Leader()
    return None
