"""Faults while the command line converts: after them a store is what it would have been."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

SHAPE = (96, 144, 264)
OPTIONS = ("--voxel-size", "1", "--chunk", "16", "--shard", "32", "--workers", "2")
LEDGER = ".isosr-ledger.jsonl"
LAST_SLICE = "slice95.tif"
DEADLINE = 100.0

Process = subprocess.Popen[str]
Start = Callable[..., Process]
Resize = Callable[[float], None]


@dataclass
class Undisturbed:
    """A conversion that nothing happened to: its files, and the lines of its ledger."""

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
            pytest.fail(f"convert exited {process.returncode} before {what}: {ended(process)}")
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


def assert_finishes(process: Process, store: Path, undisturbed: Undisturbed) -> None:
    shown = ended(process)
    assert process.returncode == 0, shown
    assert_identical(store, undisturbed)


def assert_failed_well(process: Process, reason: str) -> None:
    """Check that a run failed with one message that says why, and how to go on."""
    shown = ended(process)
    assert process.returncode == 1, shown
    assert re.search(reason, shown), shown
    assert "--resume" in shown, shown
    assert "Traceback" not in shown, shown
    assert shown.count("isosr-pipeline: ") == 1, shown


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slices of noise, which no compression makes smaller.

    Their tiles are small, so that regions are too: whole rows would be read together.
    """
    folder = tmp_path_factory.mktemp("faults") / "slices"
    folder.mkdir()
    voxels = np.random.default_rng(5).integers(0, 65536, SHAPE, dtype=np.uint16)
    for z, plane in enumerate(voxels):
        path = folder / f"slice{z:02}.tif"
        tifffile.imwrite(path, plane, compression="zlib", tile=(16, 16))
    return folder


def begin(source: Path, store: Path, *options: str) -> Process:
    """Start a conversion in a session of its own; only the store lies where it is told to."""
    command = [sys.executable, "-m", "isosr_pipeline", "convert", str(source), str(store)]
    return subprocess.Popen(
        [*command, *OPTIONS, *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(source.parent / "scratch")},
    )


@pytest.fixture
def start(source: Path) -> Iterator[Start]:
    """Start conversions, which end with the test at the latest."""
    begun: list[Process] = []

    def start(store: Path, *options: str) -> Process:
        begun.append(begin(source, store, *options))
        return begun[-1]

    yield start
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    store = tmp_path_factory.mktemp("undisturbed") / "out.zarr"
    process = begin(source, store)
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


def strike_in_a_write(process: Process, store: Path, known: set[str], last: int) -> None:
    """Kill all workers, if possible while a file of theirs has not got its name yet.

    They are frozen and looked at again and again, at the latest until the ledger has `last` lines.
    """

    def torn() -> bool:
        workers = workers_of(process)
        for worker in workers:
            worker.suspend()
        until(lambda: all(map(stands_still, workers)), process, "workers stand still")
        names = {str(p.relative_to(store)) for p in store.rglob("*") if p.is_file()}
        hit = bool(workers) and (bool(names - known - {LEDGER}) or lines(store) >= last)
        for worker in workers:
            worker.kill() if hit else worker.resume()
        return hit

    until(torn, process, f"a strike before line {last}")
    assert process.poll() is None


def test_killed_workers_cost_nothing_but_time(start, undisturbed, tmp_path):
    rng = np.random.default_rng(1)
    out = tmp_path / "out.zarr"
    process = start(out)
    for _ in range(2):
        until_about(lines(out) + rng.uniform(0.05, 0.3) * undisturbed.lines, process, out, rng)
        workers = workers_of(process)
        workers[rng.integers(len(workers))].kill()
        assert process.poll() is None
        assert (out / LEDGER).exists()
    strike_in_a_write(process, out, set(undisturbed.files), int(0.9 * undisturbed.lines))
    assert_finishes(process, out, undisturbed)


def kill_all(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE) == -signal.SIGKILL


def test_a_run_that_is_killed_again_and_again_is_resumed(start, undisturbed, tmp_path):
    rng = np.random.default_rng(3)
    out = tmp_path / "place" / "out.zarr"
    out.parent.mkdir()
    process = start(out)
    until(lambda: any(out.parent.iterdir()), process, "a store is being created")
    kill_all(process)

    process = start(out, "--resume")
    until((out / LEDGER).exists, process, "a store without regions")
    kill_all(process)

    early, middle = rng.uniform([0.1, 0.4], [0.3, 0.7]) * undisturbed.lines
    for line in (early, middle):
        process = start(out, "--resume")
        until_about(max(lines(out) + 1, line), process, out, rng)
        kill_all(process)
        assert (out / LEDGER).exists()

    process = start(out, "--resume")
    until(lambda: lines(out) >= undisturbed.lines - 5, process, "the last level")
    kill_all(process)
    assert (out / LEDGER).exists(), "the run had finished before it was killed"
    assert_finishes(start(out, "--resume"), out, undisturbed)


def test_workers_end_without_their_driver_and_the_run_is_resumed(start, undisturbed, tmp_path):
    rng = np.random.default_rng(4)
    out = tmp_path / "out.zarr"
    process = start(out)
    until_about(rng.uniform(0.1, 0.7) * undisturbed.lines, process, out, rng)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(workers_of(process)) == 2
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert (out / LEDGER).exists()
    deadline = time.monotonic() + DEADLINE
    while orphans := [p for p in family if not has_ended(p)]:
        assert time.monotonic() < deadline, f"still there without their driver: {orphans}"
        time.sleep(0.01)
    assert_finishes(start(out, "--resume"), out, undisturbed)


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


def test_a_full_disk_is_named_and_a_larger_one_takes_the_rest(start, undisturbed, disk):
    path, resize = disk
    out = path / "out.zarr"
    size = 2 * np.prod(SHAPE)
    for fraction in (0.4, 0.6):
        resize(fraction * size)
        process = start(out, "--resume")
        assert_failed_well(process, "No space left on device|disk (is full|takes no more)")
        assert lines(out)
    resize(4 * size)
    assert_finishes(start(out, "--resume"), out, undisturbed)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Overwrite voxels and keep header and size, so that only decoding them tells."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(np.random.default_rng(6).bytes(path.stat().st_size // 4))


@pytest.mark.parametrize("damage", [Path.unlink, cut, overwrite])
def test_a_slice_damaged_meanwhile_is_named_and_costs_only_its_regions(
    start, undisturbed, source, tmp_path, damage
):
    out, lost = tmp_path / "out.zarr", source / LAST_SLICE
    whole = lost.read_bytes()
    process = start(out)
    try:
        until(lambda: lines(out) > 0, process, "the first region")
        before = lines(out)
        damage(lost)
        assert_failed_well(process, re.escape(LAST_SLICE))
    finally:
        lost.write_bytes(whole)
    assert before <= lines(out) < undisturbed.lines
    assert_finishes(start(out, "--resume"), out, undisturbed)


def test_ctrl_c_ends_a_run_that_resumes_to_the_same_files(start, undisturbed, tmp_path):
    rng = np.random.default_rng(8)
    out = tmp_path / "out.zarr"
    process = start(out)
    until_about(rng.uniform(0.1, 0.6) * undisturbed.lines, process, out, rng)
    os.killpg(process.pid, signal.SIGINT)
    shown = ended(process)
    assert process.returncode == 75, shown
    assert "--resume" in shown
    assert "Traceback" not in shown
    assert_finishes(start(out, "--resume"), out, undisturbed)


def test_a_second_run_is_refused_and_does_no_harm_to_the_first(start, undisturbed, tmp_path):
    out = tmp_path / "out.zarr"
    first = start(out)
    until(lambda: lines(out) > 0, first, "the first region")
    # Frozen, it can't get done before the others have tried.
    os.killpg(first.pid, signal.SIGSTOP)
    assert (out / LEDGER).exists()
    others = [start(out, "--resume"), start(out, "--overwrite")]
    for other in others:
        shown = ended(other)
        assert other.returncode == 2, shown
        assert "being filled by another process" in shown
        assert "Traceback" not in shown
    os.killpg(first.pid, signal.SIGCONT)
    assert_finishes(first, out, undisturbed)
