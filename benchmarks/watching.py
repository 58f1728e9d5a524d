"""Runs commands as a user does, and watches how long they take and how much memory they need."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass
class Measured:
    """What a command took: seconds, and peak resident memory in bytes.

    Parameters
    ----------
    seconds : float
        Start-up included.
    together : int
        Of the process and all its children: what they share counts once for each.
    largest : int
        Of the largest of these processes.
    """

    seconds: float
    together: int
    largest: int


def measure(command: Sequence[object]) -> Measured:
    """Run a command to its end and watch its memory; leave the program if it fails."""
    begin = time.monotonic()
    process = subprocess.Popen([str(part) for part in command])
    together = largest = 0
    while process.poll() is None:
        sizes = _resident(process.pid)
        together, largest = max(together, sum(sizes)), max(largest, *sizes, 0)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        sys.exit(f"{command[0]} failed with exit code {process.returncode}")
    return Measured(time.monotonic() - begin, together, largest)


def isosr(*arguments: object) -> list[object]:
    """Return the command line of isosr-pipeline with arguments."""
    return [sys.executable, "-m", "isosr_pipeline", *arguments]


def _resident(pid: int) -> list[int]:
    try:
        parent = psutil.Process(pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    sizes = []
    for process in tree:
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sizes
