"""Locks: one process at a time writes an output; they end with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from isosr_pipeline.errors import BusyError, OutputPathError

_SECONDS_IN_A_JOB = 300.0
_SECONDS_BETWEEN_TRIES = 1.0


def flock(file: IO[Any], patience: float | None = None) -> None:
    """Lock an open file until it is closed.

    In a SLURM job it is waited for: the process of the job's run before, on a node that was lost,
    may live on for minutes, or the file system not know yet that it has ended. Elsewhere somebody
    is there to be told.

    Parameters
    ----------
    file : file
        Open for writing.
    patience : float, optional
        Seconds for which it is waited, whoever asks.

    Raises
    ------
    BlockingIOError
        When another process holds the lock.
    OSError
        When the file system has no locks.
    """
    if patience is None:
        patience = _SECONDS_IN_A_JOB if "SLURM_JOB_ID" in os.environ else 0.0
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def lock(file: IO[bytes], path: Path, busy: str, patience: float | None = None) -> None:
    """Lock an open file until it is closed.

    Parameters
    ----------
    file : binary file
        Open for writing.
    path : Path
        What it guards, for messages.
    busy : str
        Message where another process holds the lock.
    patience : float, optional
        See `flock`.

    Raises
    ------
    BusyError
        When another process holds the lock.
    OutputPathError
        When the file system has no locks.
    """
    try:
        flock(file, patience)
    except BlockingIOError as error:
        raise BusyError(busy) from error
    except OSError as error:
        raise OutputPathError(
            f"{path} can't be locked ({error.strerror or error}); have its file system mounted "
            "with file locks (flock), or give a path on another one"
        ) from error


@contextmanager
def passing_lock(file: Path, path: Path, busy: str) -> Iterator[None]:
    """Hold a lock whose file is there only meanwhile.

    Parameters
    ----------
    file : Path
        Made here, and removed at the end; its folder is there.
    path : Path
        What it guards, for messages.
    busy : str
        Message where another process holds the lock.

    Raises
    ------
    BusyError
        When another process holds the lock.
    OutputPathError
        When the file system has no locks.
    """
    while True:
        with file.open("ab") as opened:
            lock(opened, path, busy)
            # Whoever held it has removed it since it was opened: it guards nothing any more.
            if os.fstat(opened.fileno()).st_nlink == 0:
                continue
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return
