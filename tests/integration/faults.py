"""What tests of faults share: steps on the command line that are struck while they fill a store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

LEDGER = ".isosr-ledger.jsonl"
DEADLINE = 200.0

Process = subprocess.Popen[str]
Start = Callable[..., Process]
Resize = Callable[[float], None]


@dataclass
class Step:
    """A step on the command line that fills a store.

    Parameters
    ----------
    command : tuple of str or Path
        Its name, and all that comes before the store.
    options : tuple of str
        What comes behind the store.
    where : tuple of str
        Options that say where it runs; a test may give others.
    scratch : Path
        For temporary files, so that only the store lies where it is told to.
    """

    command: tuple[str | Path, ...]
    options: tuple[str, ...]
    where: tuple[str, ...]
    scratch: Path

    def begin(self, store: Path, *more: str, where: tuple[str, ...] | None = None) -> Process:
        """Start it in a session of its own."""
        command = [*self.command, store, *self.options, *(self.where if where is None else where)]
        return subprocess.Popen(
            [sys.executable, "-m", "isosr_pipeline", *map(str, command), *more],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self.scratch)},
        )


@dataclass
class Undisturbed:
    """A run that nothing happened to: the files of its store, and the lines of its ledger."""

    files: dict[str, object] = field(repr=False)
    lines: int


def files_of(store: Path) -> dict[str, object]:
    """Read all files of a store, without what differs from run to run."""
    files: dict[str, object] = {
        str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()
    }
    root = json.loads((store / "zarr.json").read_bytes())
    own = root["attributes"]["isosr"]
    del own["id"]
    for step in own["history"]:
        del step["command"]
    files["zarr.json"] = root
    return files


def assert_identical(store: Path, undisturbed: Undisturbed) -> None:
    found, expected = files_of(store), undisturbed.files
    wrong = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "different": sorted(n for n in expected.keys() & found.keys() if expected[n] != found[n]),
    }
    told = "; ".join(f"{len(n)} {how}: {', '.join(n[:5])}" for how, n in wrong.items() if n)
    assert not told, f"{store} is not what an undisturbed run makes: {told}"


def lines(store: Path) -> int:
    """Count the regions that the ledger of a store has; 0 without one."""
    with suppress(FileNotFoundError):
        return (store / LEDGER).read_bytes().count(b'"files":')
    return 0


def until(state: Callable[[], bool], process: Process, what: str) -> None:
    """Wait for a state that a running process brings about."""
    deadline = time.monotonic() + DEADLINE
    while not state():
        if process.poll() is not None:
            pytest.fail(f"the run exited {process.returncode} before {what}: {ended(process)}")
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE:g} s"
        time.sleep(0.002)


def until_about(line: float, process: Process, store: Path, rng: np.random.Generator) -> None:
    """Wait until the ledger has a line, and then for a few regions' time at most."""
    until(lambda: lines(store) >= line, process, f"line {line:g} of the ledger")
    time.sleep(rng.uniform(0, 0.05))


def ended(process: Process) -> str:
    """Wait for the end of a process and return what it said."""
    return process.communicate(timeout=DEADLINE)[1]


def workers_of(process: Process) -> list[psutil.Process]:
    """Return the worker processes that live, without multiprocessing's own helpers."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def stands_still(process: psutil.Process) -> bool:
    return has_ended(process) or process.status() == psutil.STATUS_STOPPED


def kill_all(process: Process) -> None:
    """Kill a run with all its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE) == -signal.SIGKILL


def kill_driver(process: Process) -> None:
    """Kill a run's own process, and wait for its workers, which must not outlive it."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(workers_of(process)) == 2
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    deadline = time.monotonic() + DEADLINE
    while orphans := [p for p in family if not has_ended(p)]:
        assert time.monotonic() < deadline, f"still there without their driver: {orphans}"
        time.sleep(0.01)


def assert_finishes(process: Process, store: Path, undisturbed: Undisturbed) -> None:
    shown = ended(process)
    assert process.returncode == 0, shown
    assert_identical(store, undisturbed)


def assert_failed_well(process: Process, reason: str) -> None:
    """Check that a run failed with one message that says why, and how to go on."""
    shown = ended(process)
    assert process.returncode == 1, shown
    assert_said_well(shown, reason)


def assert_interrupted_well(process: Process) -> None:
    """Check that a run ended as one that was asked to, and said how to go on."""
    shown = ended(process)
    assert process.returncode == 75, shown
    assert_said_well(shown, "interrupted")


def assert_said_well(shown: str, reason: str) -> None:
    """Check that there is one message that says why, and how to go on."""
    assert re.search(reason, shown), shown
    assert "--resume" in shown, shown
    assert "Traceback" not in shown, shown
    assert shown.count("isosr-pipeline: ") == 1, shown


def cut(path: Path) -> None:
    """Cut a file to half its length."""
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Overwrite voxels and keep header and size, so that only decoding them tells."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(np.random.default_rng(6).bytes(path.stat().st_size // 4))
