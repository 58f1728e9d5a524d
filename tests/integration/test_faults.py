"""Faults while the command line converts: after them a store is what it would have been."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from faults import (
    LEDGER,
    Process,
    Step,
    assert_failed_well,
    assert_finishes,
    assert_interrupted_well,
    cut,
    ended,
    kill_all,
    kill_driver,
    lines,
    overwrite,
    stands_still,
    until,
    until_about,
    workers_of,
)

SHAPE = (96, 144, 264)
OPTIONS = ("--voxel-size", "1", "--chunk", "16", "--shard", "32")
LAST_SLICE = "slice95.tif"


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


@pytest.fixture(scope="module")
def step(source: Path) -> Step:
    return Step(("convert", source), OPTIONS, ("--workers", "2"), source.parent / "scratch")


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
    kill_driver(process)
    assert (out / LEDGER).exists()
    assert_finishes(start(out, "--resume"), out, undisturbed)


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
    assert_interrupted_well(process)
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
