from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.metrics import peak_signal_noise_ratio

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.store.volume import Volume

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Import a benchmark's module as its scripts do."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def compare(module, isosr, monkeypatch, capsys):
    """Run the script here, and its commands here too, which spares loading PyTorch for each."""

    def ended(arguments):
        code = isosr(*arguments)
        return (code, *capsys.readouterr())

    monkeypatch.setattr(module("method_rows"), "ended", ended)

    def run(folder, *options):
        command = ["methods.py", folder, "--threads", 1, *options]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        module("methods").main()
        return capsys.readouterr().out

    return run


def test_two_rows_are_made_once_and_told_with_the_targets(compare, tmp_path):
    options = ["--size", 40, "--minutes", 0.02, "--scenes", "beads", "--cases", "2x-step3"]
    options += ["--methods", "input", "ot-cyclegan"]
    table = compare(tmp_path, *options)
    cells = [line.split(" | ") for line in table.splitlines() if line.startswith("| beads")]
    assert [row[2] for row in cells] == ["input", "ot-cyclegan"]

    volumes, work = tmp_path / "volumes/beads-2x-step3", tmp_path / "work"
    restored = Volume(work / "beads-2x-step3-ot-cyclegan/restored.zarr")
    image = restored.read(0, Box.whole(Zyx(*restored.shape[1:]))).astype(float)
    truth = tifffile.imread(volumes / "held-truth.tif")[: len(image)].astype(float)
    fitted = np.polyval(np.polyfit(image.ravel(), truth.ravel(), 1), image)
    psnr = peak_signal_noise_ratio(truth, fitted, data_range=truth.max())
    assert float(cells[1][3]) == pytest.approx(psnr, abs=0.01)
    # The volume that is restored is another one than that of the training.
    seen, held = (tifffile.imread(volumes / f"{name}.tif") for name in ("seen", "held"))
    assert seen.shape == held.shape == (14, 40, 40)
    assert not np.array_equal(seen, held)

    assert "Targets, 0.02 min" in table
    assert table.count("not told") == 6

    rows = sorted((tmp_path / "rows").iterdir())
    made = [path.stat().st_mtime_ns for path in rows]
    command = [sys.executable, BENCHMARKS / "methods.py", tmp_path, "--threads", 1, *options]
    again = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    assert again.stdout == table
    assert [path.stat().st_mtime_ns for path in rows] == made
    with pytest.raises(SystemExit, match="give another folder"):
        compare(tmp_path, *options, "--seed", 3)


def test_a_method_that_train_does_not_know_is_told_from_a_failure(module, tmp_path):
    rows = module("method_rows")
    for options in (["--method", "magic"], ["--wand", 1]):
        with pytest.raises(rows.UnknownError, match=r"--(method|wand)"):
            rows.run(["train", tmp_path / "gone.zarr", tmp_path / "m", *options], tmp_path / "log")
    with pytest.raises(rows.FailedError, match=r"ended with 2: .*does not exist") as failure:
        rows.run(["info", tmp_path / "gone.zarr"], tmp_path / "log")
    assert failure.type is rows.FailedError


def test_rows_are_given_what_they_may_know(module, tmp_path):
    rows = module("method_rows")
    plan = rows.Plan(tmp_path, 128, 3.0, 1000.0, 0, None, {"upper-bound": "--width 8"})
    given = {name: rows.training(plan, "neurites", "2x-step3", name) for name in rows.METHODS}
    assert given["input"] == []
    assert given["richardson-lucy"] == (
        ["--method", "richardson-lucy", "--lateral-fwhm", "1.2", "--axial-fwhm", "2.4"]
    )
    assert given["upper-bound"][:4] == ["--method", "self-blur", "--axial-fwhm", "2.0785"]
    assert given["upper-bound"][-2:] == ["--width", "8"]
    assert "--axial-fwhm" not in given["self-blur"]
    for name in ("ot-cyclegan", "self-net", "self-blur", "upper-bound"):
        assert given[name][given[name].index("--minutes") + 1] == "3.0"


def _row(rows, scores, name, psnr, widths=None, blind=None):
    axial, lateral = widths or (None, None)
    figures = {"ssim": 0.9, "nrmse": 0.1, "ratio": 0.8, "axial_um": axial, "lateral_um": lateral}
    found = scores.Scores(psnr_db=psnr, **figures)
    told = blind and rows.Blind(true_um=2.0, told_um=blind, low_um=blind, high_um=blind)
    return rows.Row(scene="beads", case="2x", name=name, command=[], scores=found, blind=told)


@pytest.mark.parametrize(
    ("psnr", "widths", "blind", "met"),
    [(39.0, (2.05, 2.0), 2.1, True), (34.0, (2.4, 2.1), 2.5, False)],
)
def test_targets_are_met_or_missed_by_their_rows(module, psnr, widths, blind, met):
    rows, scores = module("method_rows"), module("method_scores")
    made = [
        _row(rows, scores, "input", 30.0, (4.0, 2.0), blind),
        _row(rows, scores, "richardson-lucy", 29.0),
        _row(rows, scores, "richardson-lucy-axial", 32.0),
        _row(rows, scores, "richardson-lucy-full", 31.0),
        _row(rows, scores, "self-net", psnr - 4.5),
        _row(rows, scores, "self-blur", psnr, widths),
        _row(rows, scores, "upper-bound", 39.5),
    ]
    said = list(module("method_targets").targets({(r.scene, r.case, r.name): r for r in made}))
    assert len(said) == 7
    for line in said:
        assert line.startswith("- met in all 1" if met else "- MISSED in 1 of 1")


def test_a_kept_row_is_read_and_not_made_again(module, tmp_path):
    rows, scores = module("method_rows"), module("method_scores")
    plan = rows.Plan(tmp_path, 40, 1.0, 1000.0, 0, None, {})
    kept = _row(rows, scores, "input", 30.0)
    path = tmp_path / "rows" / "beads-2x-input.json"
    path.parent.mkdir()
    path.write_text(json.dumps(kept.model_dump()))
    assert rows.make_row(plan, "beads", "2x", "input") == kept
    assert not (tmp_path / "volumes").exists()
