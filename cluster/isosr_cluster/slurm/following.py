"""Jobs that are submitted and waited for: their logs are shown as they grow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import exit_file

_SECONDS_BETWEEN_LOOKS = 2.0
_LOOKS_BETWEEN_QUESTIONS = 5
_MOST_UNKNOWN = 3


def follow(
    number: int,
    log: Path,
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
    should_leave: Callable[[], bool] = lambda: False,
) -> str | None:
    """Wait for the end of a job, and show what it logs meanwhile.

    Parameters
    ----------
    number : int
    log : Path
        Of the job, whose script is that of a `Driver`.
    say : callable
        Shows a line.
    should_stop : callable
        Asked every few seconds; when true, the job is cancelled.
    should_leave : callable
        Asked before; when true, the job goes on, and is not waited for any more.

    Returns
    -------
    str or None
        How it has ended: its exit code and the signal that it was asked to stop by, or SLURM's
        word for its state; None: it was cancelled from here, or goes on.
    """
    shown = _Shown(log, say)
    unknown = looks = 0
    while True:
        if should_leave():
            return None
        if should_stop():
            commands.cancel([number])
            shown.more()
            return None
        shown.more()
        if looks % _LOOKS_BETWEEN_QUESTIONS == 0:
            found = _state(number, shown)
            unknown = 0 if found else unknown + 1
            if (found and found.ended) or unknown >= _MOST_UNKNOWN:
                shown.more()
                return _ending(log, found)
        looks += 1
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _ending(log: Path, found: Job | None) -> str:
    try:
        return exit_file(log).read_text(encoding="utf-8").strip()
    except OSError:
        # SLURM says so of exit code 0 only; other nodes may see the file late, or never.
        if found and found.state == "COMPLETED":
            return "0"
        return found.state if found else "forgotten by SLURM"


class _Shown:
    """Shows the lines that a file has grown by."""

    def __init__(self, log: Path, say: Callable[[str], None]) -> None:
        self._log, self._say = log, say
        self._offset = 0
        self._waits = ""

    def more(self) -> None:
        """Show whole lines that were not shown yet."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            self._say(line)

    def waiting(self, reason: str) -> None:
        """Say why a job waits, when that has changed."""
        if reason != self._waits:
            self._say(f"the job waits in SLURM's queue: {reason}")
        self._waits = reason


def _state(number: int, shown: _Shown) -> Job | None:
    try:
        found = commands.find_jobs([number]).get(number)
    except SlurmError as error:
        shown.waiting(f"{error}; it is asked again")
        # Not unknown: nobody has answered.
        return Job(number, "PENDING", "", "", "", "", "", "")
    if found is not None and found.state == "PENDING":
        shown.waiting(found.reason or "no reason given")
    return found
