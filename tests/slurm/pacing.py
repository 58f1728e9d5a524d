"""Sets the pace of real work in the jobs of tests: slow, or held until a test has done its worst.

Workers preload it, so that their regions are noted in ``begun`` and ``done``, with the job that
they are computed in. A training runs in it:

    python pacing.py -m isosr_pipeline train ...

Its folder (`FOLDER`) may hold the files ``seconds``, that a region or a step takes more than it
would, and ``hold``, the first region that waits for as long as this file is there.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "ISOSR_TEST_PACE"
POLL = 0.05


def dask_setup(_worker: Any) -> None:
    """Set the pace of the regions that a worker restores."""
    from isosr_pipeline.restoring.regions import RestoreRegion

    restore = RestoreRegion.__call__

    def restore_slowly(self: RestoreRegion, region: Any) -> Any:
        note("begun", region.index)
        while region.index >= number("hold", region.index + 1):
            time.sleep(POLL)
        time.sleep(number("seconds", 0))
        result = restore(self, region)
        note("done", region.index)
        return result

    RestoreRegion.__call__ = restore_slowly


def train() -> None:
    """Run the program, with slow steps of training."""
    from isosr_pipeline.training import loop as training

    step = training._Loop.step

    def step_slowly(self: Any, stored: Any) -> Any:
        time.sleep(number("seconds", 0))
        return step(self, stored)

    training._Loop.step = step_slowly
    # What begins is this file, as a script: its own options come first.
    _, program, *arguments = sys.argv[1:]
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__")


def number(name: str, otherwise: float) -> float:
    with suppress(FileNotFoundError):
        return float((Path(os.environ[FOLDER]) / name).read_text())
    return otherwise


def note(name: str, index: int) -> None:
    # Short lines that are appended at once do not mix.
    with (Path(os.environ[FOLDER]) / name).open("a") as file:
        file.write(f"{index} {os.environ.get('SLURM_JOB_ID', 0)}\n")


if __name__ == "__main__":
    train()
