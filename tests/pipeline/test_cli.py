from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from isosr_pipeline.cli.main import _COMMANDS
from isosr_pipeline.store.volume import Volume


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_help_with_an_example(isosr, capsys, command):
    assert isosr(command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"isosr-pipeline {command}" in shown.split("Example:")[1]


def test_help_does_not_wait_for_large_libraries():
    code = (
        "import sys; from isosr_pipeline.cli.main import group; "
        "group.main(['--help'], standalone_mode=False); "
        "sys.exit(bool({'torch', 'distributed', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_simulate_writes_what_convert_reads(isosr, tmp_path, capsys):
    out, truth = tmp_path / "blurred.tif", tmp_path / "truth.tif"
    options = ["--shape", "20,30,40", "--z-step", 2, "--voxel-size-um", 0.5]
    assert isosr("simulate", out, "--truth", truth, *options) == 0
    assert tifffile.imread(out).shape == (10, 30, 40)
    assert tifffile.imread(truth).shape == (20, 30, 40)
    assert isosr("convert", out, tmp_path / "v.zarr") == 0
    assert Volume(tmp_path / "v.zarr").voxel_size == pytest.approx((1.0, 0.5, 0.5))
    assert isosr("simulate", out, *options) == 2
    assert "blurred.tif exists" in capsys.readouterr().err
    assert isosr("simulate", out, *options, "--overwrite") == 0


def test_simulated_beads_are_as_wide_as_published_unless_told_otherwise(isosr, tmp_path):
    made = [tmp_path / f"{i}.tif" for i in range(3)]
    beads = ["--scene", "beads", "--shape", 32]
    widths = ["--lateral-fwhm-um", 1.98, "--axial-fwhm-um", 3.91]
    assert isosr("simulate", made[0], *beads) == 0
    assert isosr("simulate", made[1], *beads, *widths) == 0
    assert isosr("simulate", made[2], *beads, "--axial-fwhm-um", 6) == 0
    usual, published, wider = map(tifffile.imread, made)
    np.testing.assert_array_equal(usual, published)
    assert not np.array_equal(usual, wider)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "x.npy"], "suffix"),
        (["simulate", "no/x.tif"], "make it first"),
        (["simulate", "x.tif", "--truth", "x.tif"], "two paths"),
        (["simulate", "x.tif", "--scene", "galaxy"], "neurites, beads, cells"),
        (["simulate", "x.tif", "--shape", "3,4"], "--shape: give one number, or three"),
        (["simulate", "x.tif", "--shape", "4000"], "need .* GB of memory, .*smaller --shape"),
        (["simulate", "x.tif", "--seed", "-1"], "--seed: "),
        (["simulate", "x.tif", "--photons", "inf"], "--photons: .*finite"),
        (["simulate", "x.tif", "--axial-fwhm-um", "1"], "--axial-fwhm-um: .*longest along z"),
        (["simulate", "x.tif", "--stripes", "1"], "--stripes: .*less than 1"),
        (["convert", "gone", "x.zarr", "--voxel-size", "inf"], "--voxel-size: .*finite"),
        (["restore", "a", "b", "c", "--window", "0,inf"], "--window: .*finite"),
        (["convert", "gone", "x.zarr"], "gone does not exist"),
        (["convert", "gone"], "Missing argument"),
        (["train", "gone.zarr", "m", "--iterations", "0"], "--iterations: Input should be"),
        (["train", "gone.zarr", "m", "--iterations", "1"], "gone.zarr does not exist"),
        (["restore", "gone.zarr", "identity", "x.zarr"], "gone.zarr does not exist"),
        (["restore", "a", "b", "c", "--block", "huge"], "--block: .*huge"),
        (["evaluate", "gone.zarr", "gone2.zarr"], "gone.zarr does not exist"),
        (["evaluate", "a", "b", "--cluster", "gone.yaml"], "gone.yaml does not exist; give a site"),
        (["info", "gone.zarr"], "gone.zarr does not exist"),
        (["run", "gone.yaml"], "gone.yaml does not exist"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_usage_exits_2_with_one_message(
    isosr, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert isosr(*arguments) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert re.search(message, shown)
    assert list(tmp_path.iterdir()) == []


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("spoil", "options", "named"),
    [
        (lambda f: [p.unlink() for p in f.iterdir()], [], "slices holds no TIFF"),
        (lambda f: tifffile.imwrite(f / "slice3.tif", np.zeros((9, 9), np.uint16)), [], "slice3"),
        (lambda f: tifffile.imwrite(f / "slice4.tif", np.zeros((50, 45), np.uint8)), [], "slice4"),
        (lambda f: _cut(f / "slice5.tif"), [], r"slice5\.tif is cut short"),
        (lambda _: None, None, "--voxel-size"),
        (lambda f: (f.parent / "out.zarr").mkdir(), [], r"out\.zarr exists; .* --overwrite"),
    ],
    ids=["empty", "shape", "dtype", "cut", "voxel size", "exists"],
)
def test_bad_sources_exit_2_and_leave_nothing(
    isosr, tmp_path, slices, noise, capsys, spoil, options, named
):
    folder = slices(noise)
    spoil(folder)
    before = set(tmp_path.rglob("*"))
    size = ["--voxel-size", "1"] if options is not None else []
    assert isosr("convert", folder, tmp_path / "out.zarr", *size) == 2
    assert re.search(named, capsys.readouterr().err)
    assert set(tmp_path.rglob("*")) == before


def test_a_multi_page_tiff_cut_short_exits_2_and_leaves_nothing(isosr, tmp_path, noise, capsys):
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, noise)
    _cut(path)
    _cut(path)
    assert isosr("convert", path, tmp_path / "out.zarr", "--voxel-size", "1") == 2
    assert "volume.tif is cut short or damaged" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_unexpected_errors_exit_1_and_debug_adds_the_traceback(isosr, monkeypatch, capsys):
    def fail(_path):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("isosr_pipeline.steps.info.describe", fail)
    assert isosr("info", "x.zarr") == 1
    shown = capsys.readouterr().err
    assert "the sky fell" in shown
    assert "Traceback" not in shown
    assert isosr("info", "x.zarr", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_info_for_people_and_programs(isosr, make_store, noise, capsys):
    path = make_store(noise, voxel_size=(2.0, 1.0, 1.0)).path
    assert isosr("info", path) == 0
    shown = capsys.readouterr().out
    assert "1 × 40 × 50 × 45 uint16" in shown
    assert "2 × 1 × 1 µm" in shown
    assert isosr("info", path, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["isotropic_shape"] == [79, 50, 45]
    assert described["complete"] is True


def test_info_shows_stores_that_have_no_isotropic_grid(isosr, make_store, noise, capsys):
    path = make_store(noise, voxel_size=(2.0, 1.0, 1.5)).path
    assert isosr("info", path) == 0
    assert re.search(r"isotropic grid +none", capsys.readouterr().out)
    assert isosr("info", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["isotropic_shape"] is None


def test_chunks_larger_than_the_volume_cost_nothing(isosr, tmp_path, noise):
    source, out = tmp_path / "source.tif", tmp_path / "out.zarr"
    tifffile.imwrite(source, noise)
    options = ["--voxel-size", 1, "--chunk", 100_000, "--workers", 1]
    assert isosr("convert", source, out, *options) == 0
    assert Volume(out).chunk == (64, 64, 64)
    assert (Volume(out).arrays[0][0] == noise).all()


@pytest.mark.parametrize(
    ("command", "function", "advice"),
    [
        (["info", "x"], "isosr_pipeline.steps.info.describe", "same command again"),
        (["evaluate", "x", "y"], "isosr_pipeline.steps.evaluate.evaluate", "same command again"),
        (
            ["simulate", "x.tif"],
            "isosr_pipeline.steps.simulate.write_simulation",
            "same command again",
        ),
        (["run", "x"], "isosr_pipeline.brain.read_brain", "what is done is kept: .* again"),
        (["convert", "x", "y"], "isosr_pipeline.steps.convert.convert", "go on with --resume"),
    ],
)
def test_interrupted_commands_advise_what_they_have(
    isosr, monkeypatch, capsys, command, function, advice
):
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupt)
    assert isosr(*command) == 75
    shown = capsys.readouterr().err
    assert re.search(advice, shown)
    assert ("--resume" in shown) == (command[0] == "convert")


def test_a_signal_while_a_class_is_made_is_an_interruption(isosr, monkeypatch, capsys):
    class Interrupted:
        def __set_name__(self, _owner: type, _name: str) -> None:
            raise KeyboardInterrupt

    def interrupt(*_args: object, **_options: object) -> None:
        type("Made", (), {"attribute": Interrupted()})

    monkeypatch.setattr("isosr_pipeline.steps.convert.convert", interrupt)
    assert isosr("convert", "x", "y") == 75
    assert "interrupted; what is done is kept" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["isosr_pipeline.cli.main"].group, "main", interrupt)
    assert isosr("convert", "x", "y") == 75
    assert "interrupted; give the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_convert_exits_75_and_resumes(tmp_path, number, hangups):
    rng = np.random.default_rng(0)
    source, out = tmp_path / "source.tif", tmp_path / "out.zarr"
    voxels = rng.integers(0, 60000, (96, 96, 96), dtype=np.uint16)
    tifffile.imwrite(source, voxels, compression="zlib")
    command = [
        *(sys.executable, "-m", "isosr_pipeline", "convert", str(source), str(out)),
        *("--voxel-size", "1", "--chunk", "16", "--shard", "16"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.glob("0/c/**/[0-9]")):
        assert process.poll() is None
        time.sleep(0.05)
    # A terminal sends Ctrl-C to the workers too; a scheduler's SIGTERM may reach them as well.
    os.killpg(process.pid, number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 75, shown
    assert "--resume" in shown
    assert "Traceback" not in shown
    done = subprocess.run([*command, "--resume"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (Volume(out).arrays[0][0] == voxels).all()
