"""Logs of jobs: where SLURM writes them, and what they say at their end."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

_LINES = 12
_BYTES = 8192


def output_option(log: Path) -> str:
    """Return the option of ``sbatch`` that has a job write to a log.

    Parameters
    ----------
    log : Path
        ``%j`` in its name stands for the job's number; its folder may have any name.
    """
    # SLURM takes % in the path for one of its own patterns.
    folder = str(log.parent).replace("%", "%%")
    return f"--output={shlex.quote(f'{folder}/{log.name}')}"


def tail(path: Path) -> str:
    """Return the last lines of a log for a message, and where it lies.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        Begins with a comma; of a log that isn't there, that it isn't.
    """
    lines = last_lines(path)
    if not lines:
        return f", and has left nothing in {path}"
    shown = "\n  ".join(lines)
    return f", whose log {path} ends with\n  {shown}"


def last_lines(path: Path, count: int = _LINES) -> list[str]:
    """Return the last lines of a text file that are not empty; none if it can't be read.

    Parameters
    ----------
    path : Path
    count : int
    """
    text = read_end(path, _BYTES)
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def read_end(path: Path, size: int) -> str:
    """Return the end of a text file; nothing if it can't be read.

    Parameters
    ----------
    path : Path
    size : int
        Bytes, at most.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
