"""Locks: one process at a time writes an output; they end with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from isosr_pipeline.errors import BusyError, OutputPathError


def lock(file: IO[bytes], path: Path, busy: str) -> None:
    """Lock an open file until it is closed.

    Parameters
    ----------
    file : binary file
        Open for writing.
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
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    with file.open("ab") as opened:
        lock(opened, path, busy)
        # Whoever held it has removed it since it was opened: it guards nothing any more.
        if os.fstat(opened.fileno()).st_nlink == 0:
            raise BusyError(busy)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
