"""What the logs of jobs say at their end."""

from __future__ import annotations

import os
from pathlib import Path

_LINES = 12
_BYTES = 8192


def tail(path: Path) -> str:
    """Return the last lines of a log for a message, and where it lies.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        Begins with a comma or a colon; of a log that isn't there, that it isn't.
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
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
