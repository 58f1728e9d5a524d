"""Faults while the command line restores: after them a store is what it would have been."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from faults import (
    LEDGER,
    Step,
    Undisturbed,
    assert_failed_well,
    assert_finishes,
    assert_identical,
    assert_interrupted_well,
    assert_said_well,
    cut,
    ended,
    files_of,
    kill_all,
    kill_driver,
    lines,
    overwrite,
    until,
    until_about,
    workers_of,
)

from isosr_models.layers import calibrate
from isosr_models.model_folder import save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.cli import main
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.store.volume import Volume

SHAPE = (8, 16, 264)
STORE = ("--chunk", "4", "--shard", "8")
OPTIONS = (*STORE, "--block", "8", "--halo", "26", "--device", "cpu")
REGIONS = 2 * 33
LAST_SHARD = "0/c/0/0/1/32"
NEAR_IT = 2 * 5
"""Regions that read the last shard, for their halo reaches into it."""

PAGE = 4096
"""What the smallest file takes on a disk in memory, in bytes."""

Command = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def command(client) -> Command:
    """Run the command line in this process, on workers that are there: no start to wait for."""

    def run(*arguments: object, capsys: pytest.CaptureFixture[str] | None = None):
        cluster = ("--cluster", client.scheduler.address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["isosr-pipeline", *map(str, arguments), *cluster])
            with pytest.raises(SystemExit) as ending:
                main()
        said = capsys.readouterr().err if capsys else ""
        return SimpleNamespace(status=int(ending.value.code or 0), said=said)

    return run


def converted(command: Command, folder: Path, voxels: np.ndarray) -> Path:
    tifffile.imwrite(folder / f"{voxels.dtype}.tif", voxels)
    store = folder / f"{voxels.dtype}.zarr"
    run = command("convert", folder / f"{voxels.dtype}.tif", store, "--voxel-size", 1, *STORE)
    assert run.status == 0
    return store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def source(command: Command, folder: Path) -> Path:
    voxels = np.random.default_rng(5).integers(0, 4000, SHAPE, dtype=np.uint16)
    return converted(command, folder, voxels)


@pytest.fixture(scope="module")
def network() -> UNet3d:
    """The smallest there is, with statistics of noise; its output is spread over the window."""
    torch.manual_seed(3)
    network = UNet3d(1)
    calibrate(network, [torch.rand(1, 1, 48, 48, 48) for _ in range(2)])
    return network


def save(folder: Path, network: UNet3d) -> Path:
    save_model(
        folder,
        {"generator": network},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    return folder


@pytest.fixture(scope="module")
def model(folder: Path, network: UNet3d) -> Path:
    return save(folder / "model", network)


@pytest.fixture(scope="module")
def step(source: Path, model: Path, folder: Path) -> Step:
    return Step(("restore", source, model), OPTIONS, ("--workers", "2"), folder / "scratch")


@pytest.fixture
def resume(command: Command, step: Step, undisturbed: Undisturbed) -> Callable[[Path], None]:
    """Go on with a store, and compare it with an undisturbed one."""

    def resume(store: Path) -> None:
        assert command(*step.command, store, *step.options, "--resume").status == 0
        assert_identical(store, undisturbed)

    return resume


def voxel_files(store: Path) -> set[str]:
    """Return the shards of level 0 that are there, or are becoming so."""
    return {str(p.relative_to(store)) for p in (store / "0" / "c").rglob("*") if p.is_file()}


def test_the_stage_is_set(undisturbed):
    """Neither empty nor saturated, so that one voxel that goes wrong is seen."""
    shards = [name for name in undisturbed.files if name.startswith("0/c/")]
    assert len(shards) == REGIONS
    assert len({undisturbed.files[name] for name in shards}) == REGIONS
    assert undisturbed.lines > REGIONS


def test_workers_killed_ten_times_cost_nothing_but_time(start, undisturbed, tmp_path):
    """Also those that have just been started in place of others, and both of them at once."""
    rng = np.random.default_rng(1)
    out = tmp_path / "out.zarr"
    process = start(out)
    for strike in range(10):
        until_about(lines(out) + 1, process, out, rng)
        until(lambda: bool(workers_of(process)), process, f"a worker to strike at {strike}")
        workers = workers_of(process)
        workers[rng.integers(len(workers))].kill()
    assert process.poll() is None
    assert (out / LEDGER).exists(), "the run had finished before it was struck ten times"
    assert_finishes(process, out, undisturbed)


def test_a_driver_that_is_killed_takes_its_workers_along(start, undisturbed, tmp_path, resume):
    rng = np.random.default_rng(2)
    out = tmp_path / "out.zarr"
    process = start(out)
    until_about(rng.uniform(0.1, 0.7) * undisturbed.lines, process, out, rng)
    kill_driver(process)
    assert (out / LEDGER).exists()
    resume(out)


def test_without_its_scheduler_a_run_ends_and_is_resumed_elsewhere(
    start, undisturbed, tmp_path, elsewhere, resume
):
    rng = np.random.default_rng(3)
    out = tmp_path / "out.zarr"
    scheduler, address = elsewhere
    process = start(out, where=("--cluster", address))
    until_about(rng.uniform(0.1, 0.5) * undisturbed.lines, process, out, rng)
    scheduler.kill()
    assert_failed_well(process, "isosr-pipeline: the cluster is lost .* --resume")
    assert 0 < lines(out) < undisturbed.lines
    resume(out)


@pytest.fixture(scope="module")
def interrupted(step: Step, undisturbed: Undisturbed, folder: Path) -> Path:
    """A store whose run was ended by Ctrl-C, which a terminal sends to all its processes."""
    rng = np.random.default_rng(5)
    out = folder / "out.zarr"
    process = step.begin(out)
    try:
        until_about(rng.uniform(0.2, 0.6) * undisturbed.lines, process, out, rng)
        os.killpg(process.pid, signal.SIGINT)
        assert_interrupted_well(process)
    finally:
        if process.poll() is None:
            kill_all(process)
    assert 0 < lines(out) < undisturbed.lines
    return out


def test_a_run_that_was_ended_by_ctrl_c_is_resumed(interrupted, tmp_path, resume):
    resume(shutil.copytree(interrupted, tmp_path / "out.zarr"))


def test_a_run_that_a_batch_system_ends_is_resumed(start, undisturbed, tmp_path, resume):
    rng = np.random.default_rng(6)
    out = tmp_path / "out.zarr"
    process = start(out)
    until_about(rng.uniform(0.1, 0.6) * undisturbed.lines, process, out, rng)
    process.terminate()
    assert_interrupted_well(process)
    assert 0 < lines(out) < undisturbed.lines
    resume(out)


def test_a_full_disk_is_named_and_a_larger_one_takes_the_rest(
    command, step, undisturbed, disk, capsys, resume
):
    path, resize = disk
    out = path / "out.zarr"
    size = PAGE * len(undisturbed.files)
    resize(0.7 * size)
    run = command(*step.command, out, *step.options, capsys=capsys)
    assert run.status == 1
    assert_said_well(run.said, "No space left on device|disk (is full|takes no more)")
    assert 0 < lines(out) < undisturbed.lines
    resize(8 * size)
    resume(out)


@pytest.mark.parametrize("damage", [cut, overwrite])
def test_a_damaged_input_shard_is_named_and_costs_only_its_regions(
    command, step, undisturbed, source, tmp_path, capsys, damage, resume
):
    out, shard = tmp_path / "out.zarr", source / LAST_SHARD
    whole = shard.read_bytes()
    damage(shard)
    try:
        run = command(*step.command, out, *step.options, capsys=capsys)
    finally:
        shard.write_bytes(whole)
    assert run.status == 1
    assert_said_well(run.said, re.escape(str(shard)))
    assert LAST_SHARD not in voxel_files(out)
    assert lines(out) == len(voxel_files(out)) >= REGIONS - NEAR_IT
    resume(out)


@pytest.fixture(scope="module")
def measured(command: Command, folder: Path) -> Path:
    voxels = np.random.default_rng(6).random(SHAPE, np.float32)
    return converted(command, folder, voxels)


def test_a_voxel_that_is_no_number_is_named_and_nothing_is_made_of_it(
    command, model, measured, tmp_path, capsys
):
    arguments = ("restore", measured, model)
    clean, out = tmp_path / "clean" / "out.zarr", tmp_path / "out.zarr"
    assert command(*arguments, clean, *OPTIONS).status == 0
    shard = measured / LAST_SHARD
    whole = shard.read_bytes()
    volume = Volume(measured, writable=True)
    corner = Box(Zyx(0, 8, 256), Zyx(*SHAPE))
    values = volume.read(0, corner)
    values[4, 4, 4] = np.nan
    volume.write(0, corner, values)
    capsys.readouterr()
    try:
        run = command(*arguments, out, *OPTIONS, capsys=capsys)
    finally:
        shard.write_bytes(whole)
    assert run.status == 1
    assert_said_well(run.said, "channel 0 has nan at z 4, y 12, x 260")
    done = voxel_files(out)
    assert LAST_SHARD not in done
    assert len(done) == lines(out) >= REGIONS - NEAR_IT
    made = Volume(out).read(0, Box.whole(SHAPE))
    assert np.isfinite(made).all()
    assert command(*arguments, out, *OPTIONS, "--resume").status == 0
    assert_identical(out, Undisturbed(files_of(clean), 0))


def test_what_the_network_makes_of_nothing_is_named_and_not_written(
    command, step, network, source, tmp_path, capsys
):
    network = UNet3d(1)
    network.encoder1[0][1].running_var.fill_(-1)
    out = tmp_path / "out.zarr"
    spoiled = save(tmp_path / "model", network)
    run = command("restore", source, spoiled, out, *step.options, capsys=capsys)
    assert run.status == 1
    assert_said_well(run.said, r"region 0 \(channel 0.*made NaN or infinities of block")
    assert not voxel_files(out)
    assert lines(out) == 0


def of_the_next_format(model: Path) -> None:
    description = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**description, "format": 3}))


def without_weights(model: Path) -> None:
    (model / "weights.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: cut(model / "weights.safetensors"), r"safetensors .*cut short"),
        (without_weights, r"has no weights\.safetensors"),
        (lambda model: cut(model / "model.json"), r"model\.json .*cut short"),
        (of_the_next_format, r"model\.json has format 3, and this program reads 1 and 2"),
    ],
    ids=["weights cut", "no weights", "description cut", "next format"],
)
def test_a_model_that_is_not_whole_is_refused_before_anything_is_written(
    command, step, model, source, tmp_path, capsys, damage, reason
):
    broken = shutil.copytree(model, tmp_path / "model")
    damage(broken)
    out = tmp_path / "out.zarr"
    run = command("restore", source, broken, out, *step.options, capsys=capsys)
    assert run.status == 2
    assert re.search(reason, run.said), run.said
    assert "Traceback" not in run.said
    assert list(tmp_path.iterdir()) == [broken]


def test_an_output_that_is_deleted_meanwhile_ends_the_run(start, undisturbed, tmp_path, resume):
    rng = np.random.default_rng(4)
    out = tmp_path / "out.zarr"
    process = start(out)
    until_about(rng.uniform(0.1, 0.5) * undisturbed.lines, process, out, rng)
    out.rename(tmp_path / "deleted")
    shown = ended(process)
    assert process.returncode == 1, shown
    assert f"{out} was removed or replaced by another process" in shown
    assert "Traceback" not in shown, shown
    assert not out.exists()
    resume(out)


@pytest.mark.parametrize("damage", [Path.unlink, cut, overwrite])
def test_an_output_shard_damaged_before_a_resume_is_made_again(
    interrupted, tmp_path, damage, resume
):
    out = shutil.copytree(interrupted, tmp_path / "out.zarr")
    done = sorted(voxel_files(out))
    damage(out / done[len(done) // 2])
    resume(out)


def test_a_second_run_is_refused_and_does_no_harm_to_the_first(
    start, command, step, undisturbed, tmp_path, capsys
):
    out = tmp_path / "out.zarr"
    first = start(out)
    until(lambda: lines(out) > 0, first, "the first region")
    # Frozen, it can't get done before the others have tried.
    os.killpg(first.pid, signal.SIGSTOP)
    assert (out / LEDGER).exists()
    for option, reason in (
        ("--resume", "being filled by another process"),
        ("--overwrite", "being filled by another process"),
        ("--debug", "exists; give another path"),
    ):
        run = command(*step.command, out, *step.options, option, capsys=capsys)
        assert run.status == 2, run.said
        assert reason in run.said
    os.killpg(first.pid, signal.SIGCONT)
    assert_finishes(first, out, undisturbed)
