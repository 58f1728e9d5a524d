from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from isosr_pipeline.brain import read_brain
from isosr_pipeline.store.volume import Volume

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["brain.yaml", "demo.yaml"])
def test_examples_are_valid(name):
    read_brain(EXAMPLES / name)


def test_a_brain_goes_all_the_way_and_is_not_done_twice(isosr, tmp_path, capsys):
    blurred, truth = tmp_path / "blurred.tif", tmp_path / "truth.tif"
    assert isosr("simulate", blurred, "--truth", truth, "--shape", 72) == 0
    brain = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())
    brain |= {"source": "blurred.tif", "output": "out", "evaluate": {"reference": "truth.tif"}}
    brain["train"] = {"width": 4, "crop": 32, "planes": 2, "iterations": 3, "device": "cpu"}
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    assert isosr("run", tmp_path / "brain.yaml") == 0
    shown = capsys.readouterr()
    assert "PSNR (dB)" in shown.out
    assert str(tmp_path / "out" / "restored.zarr") in shown.out.replace("\n", "")
    for step in ("convert:", "train:", "restore:"):
        assert step in shown.err
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert figures["after"]["against_reference"]["psnr_db"] > 10
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Power spectra" in report
    assert f"Losses of {tmp_path / 'out' / 'model'}" in report
    made = Volume(tmp_path / "out" / "restored.zarr").require_own().id
    assert Volume(tmp_path / "out" / "restored.trust.zarr").require_own().complete

    assert isosr("run", tmp_path / "brain.yaml") == 0
    assert "already" in capsys.readouterr().err
    assert Volume(tmp_path / "out" / "restored.zarr").require_own().id == made

    brain["train"]["seed"] = 5
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    assert isosr("run", tmp_path / "brain.yaml") == 2
    assert "seed was 0 and is 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("train", {"iterations": None}, "training has no end"),
        ("restore", {"halo": 5}, "receptive field of the model reaches 26"),
        ("evaluate", {"reference": "gone.tif"}, "gone.tif does not exist"),
        ("model", "gone", "gone is not a model"),
        ("source", "gone.tif", "gone.tif does not exist"),
    ],
)
def test_what_can_be_known_is_checked_before_any_work(
    isosr, tmp_path, capsys, section, change, message
):
    assert isosr("simulate", tmp_path / "blurred.tif", "--shape", 40) == 0
    brain = {"source": "blurred.tif", "output": "out", "train": {"iterations": 1}, section: change}
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    assert isosr("run", tmp_path / "brain.yaml") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_steps_are_taken_one_by_one(isosr, tmp_path, capsys):
    assert isosr("simulate", tmp_path / "blurred.tif", "--shape", 40) == 0
    train = {"width": 4, "crop": 32, "planes": 2, "iterations": 1, "device": "cpu"}
    brain = {"source": "blurred.tif", "output": "out", "train": train, "workers": 1, "trust": False}
    file = tmp_path / "brain.yaml"
    file.write_text(yaml.safe_dump(brain))
    out = tmp_path / "out"
    assert isosr("run", file, "--step", "restore") == 2
    assert "volume.zarr does not exist" in capsys.readouterr().err
    made = {"convert": "volume.zarr", "train": "model", "restore": "restored.zarr"}
    for step, name in {**made, "evaluate": "evaluation.json"}.items():
        assert not (out / name).exists()
        assert isosr("run", file, "--step", step, "--cluster", "local", "--workers", 1) == 0
        assert (out / name).exists()
        capsys.readouterr()
        assert isosr("run", file, "--step", step) == 0
        assert "already" in capsys.readouterr().err
    # Figures of a volume that was made anew since are no longer right.
    os.utime(out / "evaluation.json", (1, 1))
    assert isosr("run", file, "--step", "evaluate") == 0
    assert "already" not in capsys.readouterr().err
    file.write_text(yaml.safe_dump({**brain, "model": "out/model"}))
    assert isosr("run", file, "--step", "train") == 0
    assert "model is given, so that no model is trained" in capsys.readouterr().err
    assert isosr("run", file, "--step", "convert", "--cluster", "nowhere") == 0
