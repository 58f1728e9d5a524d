"""What tests of restoring on SLURM share: a small volume, its restoration, and sites."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from faults import Process, Undisturbed
from pacing import FOLDER

from isosr_cluster.slurm import commands

PACING = Path(__file__).with_name("pacing.py")
STORE = ("--chunk", "4", "--shard", "8")
OPTIONS = (*STORE, "--block", "8", "--halo", "26", "--device", "cpu")
SHAPE = (8, 16, 144)
REGIONS = 2 * 18
HELD = 12
"""The first region that waits where a test holds the others."""

DEADLINE = 300.0
JOB = {"cores": 1, "memory": "9 GB", "walltime": "00:10:00", "workers": 2}
"""Two don't fit on a node."""


@dataclass
class Stage:
    """A volume and a model, and what an undisturbed run makes of them; a cube to train on."""

    source: Path
    cube: Path
    model: Path
    undisturbed: Undisturbed


class Pace:
    """What `pacing` is told, and what it has noted, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def setup(self) -> list[str]:
        """Lines of a site's ``setup``, by which its workers keep this pace."""
        preload = f"export DASK_DISTRIBUTED__WORKER__PRELOAD={PACING}"
        return [f"export {FOLDER}={self.folder}", preload]

    def hold(self, region: int = HELD) -> None:
        """Have regions wait, from this one on."""
        (self.folder / "hold").write_text(str(region))

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def slow(self, seconds: float) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def held(self) -> set[int]:
        """Return the jobs that have begun a region which is not done yet."""
        done = self.done()
        return {job for region, job in self._noted("begun") if region not in done}

    def done(self) -> list[int]:
        """Return the regions that have been restored, in order, as often as that was done."""
        return sorted(region for region, _job in self._noted("done"))

    def jobs(self) -> list[int]:
        """Return the jobs that have restored regions, in order."""
        return sorted({job for _region, job in self._noted("done")})

    def _noted(self, name: str) -> list[tuple[int, int]]:
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(region), int(job)) for region, job in map(str.split, lines)]


class Runs:
    """Starts the program in sessions of its own, and ends what is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begun: list[Process] = []

    def __call__(self, *command: object, folder: Path | None = None) -> Process:
        """Start a command in a folder, where its logs go then."""
        process = subprocess.Popen(
            [sys.executable, "-m", "isosr_pipeline", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=folder or self.folder,
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self.folder / "scratch")},
        )
        self._begun.append(process)
        return process

    def end(self) -> None:
        for process in self._begun:
            if process.poll() is None:
                process.kill()
            process.communicate()


def site_file(path: Path, **described: object) -> Path:
    """Write a site file; workers on the CPU are `JOB`, unless they are described."""
    site = {"interface": "lo", "notice": 10, "cpu": JOB, **described}
    path.write_text(yaml.safe_dump({key: value for key, value in site.items() if value}))
    return path


def restoring(stage: Stage, out: Path, site: Path, *more: str) -> list[object]:
    """Return the command that restores the volume on a site."""
    return ["restore", stage.source, stage.model, out, *OPTIONS, "--cluster", site, *more]


def jobs_of_workers(*states: str) -> set[int]:
    """Return the jobs of workers that are in one of some states; without any: all that are left."""
    return {
        job.id
        for job in commands.find_jobs().values()
        if job.comment.endswith(":worker") and (job.state in states if states else not job.ended)
    }


def until(state: Callable[[], bool], what: str, process: Process | None = None) -> None:
    """Wait for a state, which a process that runs brings about."""
    deadline = time.monotonic() + DEADLINE
    while not state():
        if process is not None and process.poll() is not None:
            shown = process.communicate()[0]
            pytest.fail(f"the run exited {process.returncode} before {what}: {shown}")
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE:g} s"
        time.sleep(0.1)


def until_held(pace: Pace, process: Process, done: int, what: str) -> set[int]:
    """Wait until two jobs hold regions, and so many are done; return the jobs."""
    held: set[int] = set()

    def holding() -> bool:
        held.clear()
        held.update(pace.held() & jobs_of_workers("RUNNING"))
        return len(held) == 2 and len(set(pace.done())) >= done

    until(holding, what, process)
    return held


def shown_by(process: Process) -> str:
    """Wait for the end of a process and return what it said."""
    return process.communicate(timeout=DEADLINE)[0]
