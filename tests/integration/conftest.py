from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from dask.system import CPU_COUNT

pytest.register_assert_rewrite("faults")

from faults import (  # noqa: E402 - its assertions are rewritten first
    LEDGER,
    Process,
    Resize,
    Start,
    Step,
    Undisturbed,
    ended,
    files_of,
    lines,
    until,
)


@pytest.fixture
def start(step: Step) -> Iterator[Start]:
    """Start runs of a module's step, which end with the test at the latest."""
    begun: list[Process] = []

    def start(store: Path, *options: str, **where: tuple[str, ...]) -> Process:
        begun.append(step.begin(store, *options, **where))
        return begun[-1]

    yield start
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(step: Step, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run a module's step to its end."""
    store = tmp_path_factory.mktemp("undisturbed") / "out.zarr"
    process = step.begin(store)
    most = 0
    while process.poll() is None:
        most = max(most, lines(store))
        time.sleep(0.005)
    shown = ended(process)
    assert process.returncode == 0, shown
    files = files_of(store)
    assert LEDGER not in files
    assert most > 15, "too few regions to strike between them"
    assert any(name.startswith("2/c/") for name in files)
    return Undisturbed(files, most)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A scheduler with two workers, none of them started by the program."""
    described = tmp_path / "scheduler.json"
    place = ("--scheduler-file", str(described))
    here = {
        **os.environ,
        "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "scratch"),
        "OMP_NUM_THREADS": str(max(1, CPU_COUNT // 2)),
    }

    def begin(*arguments: str) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, *place],
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=here,
        )

    def address() -> str | None:
        # Dask makes the file before it writes to it.
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(described.read_text())["address"])
        return None

    begun = [begin("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    try:
        until(lambda: address() is not None, begun[0], "a scheduler")
        begun.append(begin("worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard"))
        yield begun[0], str(address())
    finally:
        for process in begun:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A disk in memory, and what sets its size in bytes."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(command, check=False).returncode:
        pytest.skip("a small disk can't be mounted here: it needs the rights of root")

    def resize(size: float) -> None:
        option = f"remount,size={int(size)}"
        subprocess.run(["mount", "-o", option, str(path)], check=True)

    yield path, resize
    subprocess.run(["umount", "-l", str(path)], check=True)
