"""What the log of a job tells of its failure."""

from __future__ import annotations

from pathlib import Path

from isosr_cluster.slurm.logs import read_end
from isosr_cluster.slurm.scripts import BEGINS, exit_file

_READ = 2**16
_MESSAGE = "isosr-pipeline: "
_LAST_LINES = 5
_SHOWN = 20
_WIDTH = 400


def last_error(log: Path) -> str | None:
    """Return the last message of the program in a log; if there is none, its last lines.

    All lines of the message, and what follows it: why the job was not queued again, say. Only what
    the latest run of the job has written counts.

    Parameters
    ----------
    log : Path

    Returns
    -------
    str or None
        None where there is no log, or nothing in it.
    """
    text = read_end(log, _READ)
    lines = [line.rstrip() for line in text.rpartition(BEGINS)[2].splitlines()]
    begun = [number for number, line in enumerate(lines) if line.startswith(_MESSAGE)]
    if begun:
        told = [line for line in lines[begun[-1] :] if line]
        return "\n".join(told).removeprefix(_MESSAGE)
    return "\n".join([line for line in lines[1:] if line][-_LAST_LINES:]) or None


def shortened(error: str, log: Path) -> str:
    """Return the first and last lines of a message, and where the others are.

    Parameters
    ----------
    error : str
    log : Path
        That it is from.
    """
    lines = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}…" for line in error.splitlines()]
    if (left := len(lines) - 2 * _SHOWN) > 0:
        lines[_SHOWN:-_SHOWN] = [f"… {left} more lines are in {log}"]
    return "\n".join(lines)


def ending(log: Path) -> tuple[int, str] | None:
    """Return how a job has ended: its exit code, and the signal that it was asked to stop by.

    Parameters
    ----------
    log : Path

    Returns
    -------
    tuple of int and str or None
        The signal is ``"USR1"`` (its walltime was near), ``"TERM"`` or empty. None where the job
        has not told.
    """
    try:
        code, _, asked = exit_file(log).read_text(encoding="utf-8").strip().partition(" ")
        return int(code), asked
    except (OSError, ValueError):
        return None
