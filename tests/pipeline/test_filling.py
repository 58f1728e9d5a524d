"""Stores that are filled while something is wrong: with a job, with the store, with its files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isosr_cluster.clients import open_client
from isosr_pipeline.engine.checking import find_altered, overlapping
from isosr_pipeline.engine.filling import fill
from isosr_pipeline.engine.output import begin_output
from isosr_pipeline.engine.records import FILE
from isosr_pipeline.engine.regions import RegionPlan, RegionWriter
from isosr_pipeline.engine.survey import survey
from isosr_pipeline.errors import HopelessError, InterruptedRunError, WorkFailedError
from isosr_pipeline.geometry import Box, Region, RegionGrid, Zyx
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import Provenance, StoreAttributes
from isosr_pipeline.store.pyramid import plan_levels
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.store.written import is_unchanged, read_back

SHAPE = (96, 160, 200)
LABEL = "fill"
Job = Callable[[Region], dict[str, Any]]


class Told(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def spec_of(ngff: str = "0.5") -> VolumeSpec:
    return VolumeSpec(
        (1, *SHAPE),
        np.dtype("uint16"),
        (1.0, 1.0, 1.0),
        Zyx(16, 16, 16),
        Zyx(32, 32, 32),
        ("a",),
        ngff=ngff,
    )


@contextmanager
def begun(path: Path, ngff: str = "0.5"):
    spec = spec_of(ngff)
    history = [Provenance(step=LABEL, source="-", parameters={}, versions={})]
    plan = RegionPlan(spec.shard, spec.shard, levels=1)
    with begin_output(path, spec, plan, history, "resume") as output:
        yield output


def filler(path: Path, before: Callable[[Region], None] = lambda _: None) -> Job:
    """Return a job that writes what can be told from a region's number; regions 0 to 3 are 0."""

    def write(region: Region) -> dict[str, Any]:
        before(region)
        writer = RegionWriter(Volume(path, writable=True), region, None)
        data = np.random.default_rng(region.index).integers(1, 9, region.box.shape, np.uint16)
        writer.add(region.box, data if region.index > 3 else np.zeros_like(data))
        return writer.finish()

    return write


def files_of(store: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in store.rglob("*")
        if p.is_file() and p.parent != store
    }


@pytest.fixture(params=["0.5", "0.4"])
def filled(request, client, tmp_path) -> tuple[Path, str, dict[str, bytes]]:
    """A store that is filled and not finished, its version, and its files."""
    out = tmp_path / "out.zarr"
    with begun(out, request.param) as output:
        output.fill(client, filler(out), Told(), LABEL)
    return out, request.param, files_of(out)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_store_that_is_as_it_was_written_is_left_alone(client, filled):
    out, ngff, files = filled
    for name in files:
        touch(out / name)
    told = Told()
    with begun(out, ngff) as output:
        output.fill(client, filler(out, lambda _: 1 / 0), told, LABEL)
    assert not any("again" in line for line in told.lines)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_files_that_were_altered_are_written_again(client, filled, damage):
    out, ngff, files = filled
    for level in (0, 1):
        names = [name for name in files if name.split("/")[0] == str(level) and "zarr" not in name]
        damage(out / names[len(names) // 2])
    told = Told()
    with begun(out, ngff) as output:
        assert [len(found) for found in find_altered(output.ledger).values()] == [1, 1]
        output.fill(client, filler(out), told, LABEL)
        assert not any(find_altered(output.ledger).values())
    assert files_of(out) == files
    assert any("regions are done again, as files of 1 are missing" in line for line in told.lines)
    found = survey(out)
    assert found is not None
    assert found.failures == []
    assert found.done == found.total


def test_a_stray_file_in_place_of_an_empty_one_is_found(client, filled):
    out, ngff, files = filled
    stray = "0/c/0/0/0/0" if ngff == "0.5" else "0/0/0/0/0"
    assert stray not in files, "nothing but zeros is no file"
    (out / stray).parent.mkdir(parents=True, exist_ok=True)
    (out / stray).write_bytes(b"torn")
    with begun(out, ngff) as output:
        assert find_altered(output.ledger) == {LABEL: {0}}
        output.fill(client, filler(out), Told(), LABEL)
    assert files_of(out) == files


def test_a_file_that_is_altered_in_mid_run_is_written_again_before_the_end(client, tmp_path):
    out, told = tmp_path / "out.zarr", Told()
    mark = tmp_path / "mark"

    def damage(region: Region) -> None:
        if region.index == 60 and not mark.exists():
            mark.touch()
            files = [p for p in (out / "0" / "c").rglob("*") if p.is_file()]
            # The oldest: later ones may still be compared with what was written.
            flip(min(files, key=lambda path: path.stat().st_mtime_ns))

    with begun(out) as output:
        output.fill(client, filler(out, damage), told, LABEL)
    undisturbed = tmp_path / "undisturbed.zarr"
    with begun(undisturbed) as output:
        output.fill(client, filler(undisturbed), Told(), LABEL)
    assert files_of(out) == files_of(undisturbed)
    assert any("done again" in line for line in told.lines)


def test_the_same_regions_of_coarser_levels_are_made_again():
    levels = plan_levels(Zyx(700, 500, 900), (2.0, 1.0, 1.0))
    shard = Zyx(32, 64, 48)
    fine = RegionGrid((2, *levels[1].shape), shard)
    for level in levels[2:]:
        grid = RegionGrid((2, *level.shape), shard)
        ratio = [c // f for c, f in zip(level.step, levels[1].step, strict=True)]
        for region in (fine[0], fine[len(fine) // 2 + 3], fine[len(fine) - 1]):
            found = set(overlapping(region, levels[1].step, grid, level.step))
            for other in grid:
                start = (a * r for a, r in zip(other.box.start, ratio, strict=True))
                stop = (b * r for b, r in zip(other.box.stop, ratio, strict=True))
                source = Box(Zyx(*start), Zyx(*stop))
                meets = other.channel == region.channel and all(
                    max(a, c) < min(b, d)
                    for a, b, c, d in zip(
                        source.start, source.stop, region.box.start, region.box.stop, strict=True
                    )
                )
                assert (other.index in found) == meets


def test_results_without_files_are_not_checked(client, tmp_path):
    out = tmp_path / "out.zarr"
    with begun(out) as output:
        grid = output.plan.grids(output.spec)[0]
        fill(client, grid, lambda _: {"bytes": 1}, output.ledger, Told(), LABEL)
        assert find_altered(output.ledger) == {}


def test_a_region_that_covers_several_files_is_one_short_record(tmp_path):
    volume = create_volume(tmp_path / "a.zarr", spec_of(), StoreAttributes())
    box = Box(Zyx(32, 64, 0), Zyx(96, 128, 200))
    volume.write(0, box, np.ones(box.shape, np.uint16))
    written = read_back(volume, 0, box)
    assert written.files == "0/c/0/1:3/2:4/0:7"
    files = [p for p in (volume.path / "0" / "c").rglob("*") if p.is_file()]
    assert len(files) == 2 * 2 * 7
    assert written.size == sum(p.stat().st_size for p in files)
    assert is_unchanged(volume.path, written)
    shutil.rmtree(volume.path / "0" / "c")
    assert not is_unchanged(volume.path, written)


def test_a_hopeless_error_stops_a_run_at_once(client, tmp_path):
    out = tmp_path / "out.zarr"

    def lack_memory(region: Region) -> None:
        if region.index == 2:
            raise HopelessError("a block of 64 voxels does not fit 1 GB; give more memory")
        time.sleep(0.02)

    with begun(out) as output, pytest.raises(HopelessError, match="does not fit 1 GB") as caught:
        output.fill(client, filler(out, lack_memory), Told(), LABEL)
    assert isinstance(caught.value, WorkFailedError)
    assert "region 2" in str(caught.value)
    assert "--resume" in str(caught.value)
    found = survey(out)
    assert found is not None
    assert found.failures[0].region == 2
    assert found.done < 30


def test_an_interruption_is_told_with_the_regions_that_failed(client, tmp_path):
    out, driver = tmp_path / "out.zarr", os.getpid()

    def fail(region: Region) -> None:
        if region.index == 2:
            raise ValueError("the slice is torn")
        if region.index == 60:
            os.kill(driver, signal.SIGTERM)
        time.sleep(0.02)

    with begun(out) as output, pytest.raises(InterruptedRunError) as caught:
        output.fill(client, filler(out, fail), Told(), LABEL)
    found = survey(out)
    assert found is not None
    told, done = str(caught.value), len(found.passes[LABEL].done)
    assert done < found.passes[LABEL].total - 1
    assert told.startswith(f"interrupted at {done} of {found.passes[LABEL].total} regions")
    assert "1 failed, and will be tried again:\n  region 2" in told
    assert "the slice is torn" in told


def test_a_region_that_hangs_is_named_and_the_others_are_done(tmp_path):
    out = tmp_path / "out.zarr"

    def hang(region: Region) -> None:
        if region.index == 7:
            time.sleep(1000)

    # Of its own, for its workers are ended.
    with open_client(workers=2) as client:
        with begun(out) as output, pytest.raises(WorkFailedError, match=r"region 7 .*limit of 8 s"):
            output.fill(client, filler(out, hang), Told(), LABEL, timeout=8.0)
        found = survey(out)
        assert found is not None
        assert len(found.passes[LABEL].done) == found.passes[LABEL].total - 1
        assert "longer than the limit" in found.failures[0].message
        with begun(out) as output:
            output.fill(client, filler(out), Told(), LABEL)


@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_a_store_that_goes_away_ends_the_run(client, tmp_path, again):
    out = tmp_path / "out.zarr"

    def lose(region: Region) -> None:
        time.sleep(0.05)
        if region.index == 9 and out.exists():
            out.rename(tmp_path / "moved.zarr")
            if again:
                create_volume(out, spec_of(), StoreAttributes())

    with begun(out) as output, pytest.raises(WorkFailedError, match="was removed or replaced"):
        output.fill(client, filler(out, lose), Told(), LABEL)


def test_what_is_done_is_synced_while_the_next_region_takes_long(client, tmp_path, monkeypatch):
    out, synced = tmp_path / "out.zarr", tmp_path / "synced"
    fsync = os.fsync

    def note(number: int) -> None:
        fsync(number)
        if Path(f"/proc/self/fd/{number}").readlink().name == FILE:
            found = survey(out)
            if found is not None and 0 in found.passes[LABEL].done:
                synced.touch()

    def work(region: Region) -> dict[str, Any]:
        end = time.monotonic() + 60
        while region.index and not synced.exists():
            assert time.monotonic() < end, "region 0 is done, and not synced"
            time.sleep(0.05)
        return {"bytes": 1}

    # Longer than the first region takes, so that its own record is not what syncs it.
    monkeypatch.setattr("isosr_pipeline.engine.ledger._SECONDS_BETWEEN_SYNCS", 2.0)
    monkeypatch.setattr(os, "fsync", note)
    with begun(out) as output:
        fill(client, RegionGrid((1, 1, 1, 2), Zyx(1, 1, 1)), work, output.ledger, Told(), LABEL)


def test_a_disk_that_does_not_keep_the_ledger_ends_the_run(client, tmp_path, monkeypatch):
    def refuse(_number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with begun(tmp_path / "out.zarr") as output:
        monkeypatch.setattr(os, "fsync", refuse)
        monkeypatch.setattr("isosr_pipeline.engine.ledger._SECONDS_BETWEEN_SYNCS", 1e9)
        grid = output.plan.grids(output.spec)[0]
        with pytest.raises(WorkFailedError, match=r"can't be synced .*Input/output.*--resume"):
            fill(client, grid, lambda _: {"bytes": 1}, output.ledger, Told(), LABEL)
