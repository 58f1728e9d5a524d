from __future__ import annotations

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from isosr_models.errors import ModelConfigError, ModelFormatError
from isosr_models.model_folder import DESCRIPTION, WEIGHTS, read_description
from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import InputError, ResumeError
from isosr_pipeline.steps.train import train
from isosr_pipeline.store.intensity import CONFOCAL, LIGHT_SHEET
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import OTCycleGANSettings

SMALL = OTCycleGANSettings(width=4, crop=(32, 32, 32), planes=2, iterations=3, device="cpu")


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


@pytest.mark.parametrize(
    ("preset", "crop", "percentiles", "rotations", "blur"),
    [
        ("cfm", 144, CONFOCAL, True, "deep-linear"),
        ("ot-lsm-brain", 132, LIGHT_SHEET, False, "unet"),
        ("ot-lsm-beads", 100, LIGHT_SHEET, False, "deep-linear"),
    ],
)
def test_presets_are_the_publications(preset, crop, percentiles, rotations, blur):
    made = OTCycleGANSettings(preset=preset)
    assert made.crop == (crop,) * 3
    assert made.window_percentiles == percentiles
    assert (made.rotations, made.blur) == (rotations, blur)


def test_what_is_given_comes_before_the_preset(tmp_path):
    made = OTCycleGANSettings(preset="cfm", crop=64, rotations=False, percentiles=3)
    assert (made.crop, made.rotations, made.window_percentiles) == ((64,) * 3, False, LIGHT_SHEET)
    path = tmp_path / "brain.yaml"
    path.write_text(
        "source: s\noutput: o\ntrain: {preset: ot-lsm-brain, crop: 32, percentiles: 0.03, init: m}"
    )
    brain = read_brain(path)
    assert (brain.train.crop, brain.train.blur) == ((32,) * 3, "unet")
    assert brain.train.window_percentiles == CONFOCAL
    assert brain.train.init == tmp_path / "m"
    with pytest.raises(ValidationError, match="ot-lsm-beads"):
        OTCycleGANSettings(preset="sted")
    with pytest.raises(ValidationError, match=r"0\.03"):
        OTCycleGANSettings(percentiles=5)


def test_a_preset_on_the_command_line_and_what_it_sets(isosr, store, tmp_path, capsys):
    model = tmp_path / "model"
    small = ["--crop", 32, "--width", 4, "--iterations", 1, "--device", "cpu"]
    assert isosr("train", store, model, "--preset", "cfm", *small, "--no-rotations") == 0
    run = read_description(model).training["run"]
    assert (run["crop"], run["rotations"]) == ([32, 32, 32], False)
    assert isosr("train", store, model, "--preset", "ot-lsm-beads", *small, "--resume") == 2
    assert "percentiles was '0.03' and is '3'" in capsys.readouterr().err
    assert isosr("train", store, tmp_path / "other", "--preset", "cfm", "--iterations", 1) == 2
    assert "crop is 144 along z" in capsys.readouterr().err


def test_the_window_of_light_sheets_stays_with_the_model(store, tmp_path, monkeypatch):
    used = {}

    def noted(_objective, crops, *_rest):
        used["windows"] = crops.windows
        raise KeyboardInterrupt

    settings = SMALL.model_copy(update={"percentiles": "3"})
    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.steps.train.optimise", noted)
        with pytest.raises(KeyboardInterrupt):
            train([store], tmp_path / "model", settings)
    window = Volume(store).window(0, LIGHT_SHEET)
    assert used["windows"] == [[(window.low, window.high)]]
    train([store], tmp_path / "model", settings, if_exists="resume")
    assert read_description(tmp_path / "model").window_percentiles == LIGHT_SHEET


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_training_starts_from_a_trained_model(store, tmp_path, average):
    first, second = tmp_path / "first", tmp_path / "second"
    train([store], first, SMALL.model_copy(update={"learning_rate": 1e-2}))
    # With a rate next to nothing, the weights stay what they begin as.
    change = {"init": first, "learning_rate": 1e-12, "iterations": 1, "average": average, "seed": 9}
    settings = SMALL.model_copy(update=change)
    train([store], second, settings)
    begun, ended = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    for key, value in begun.items():
        if "running" not in key and "num_batches" not in key:
            assert (value - ended[key]).abs().max() < 1e-9, key
    assert any(begun[key].abs().max() > 1e-3 for key in begun if key.startswith("blur.layers.5"))
    recorded = read_description(second).training["run"]["init"]
    description = read_description(first)
    assert recorded == {"path": str(first), "sha256": description.weights_sha256}
    with pytest.raises(ResumeError, match="init"):
        train([store], second, settings.model_copy(update={"init": None}), if_exists="resume")


def test_a_model_of_other_voxels_is_not_started_from(make_store, tmp_path):
    noise = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    stores = {size: make_store(noise, voxel_size=(size,) * 3).path for size in (1.0, 1.005, 1.02)}
    train([stores[1.0]], tmp_path / "first", SMALL)
    change = {"init": tmp_path / "first", "iterations": 1}
    with pytest.raises(InputError, match=r"voxels of 1 µm and these stores have 1\.02 µm"):
        train([stores[1.02]], tmp_path / "far", SMALL.model_copy(update=change))
    assert not (tmp_path / "far").exists()
    train([stores[1.005]], tmp_path / "near", SMALL.model_copy(update=change))
    known = json.loads((tmp_path / "first" / DESCRIPTION).read_text())
    (tmp_path / "first" / DESCRIPTION).write_text(json.dumps({**known, "voxel_size": None}))
    train([stores[1.02]], tmp_path / "far", SMALL.model_copy(update=change))


def test_a_model_of_another_window_is_not_started_from(store, tmp_path):
    windowed = SMALL.model_copy(update={"iterations": 1, "window": (10.0, 900.0)})
    train([store], tmp_path / "fixed", windowed)
    train([store], tmp_path / "first", SMALL.model_copy(update={"iterations": 1}))
    first = {"iterations": 1, "init": tmp_path / "first"}
    with pytest.raises(InputError, match=r"0\.03 and 99\.97 percentiles .* --percentiles 0\.03"):
        train([store], tmp_path / "b", SMALL.model_copy(update={**first, "percentiles": "3"}))
    fixed = {"iterations": 1, "init": tmp_path / "fixed"}
    with pytest.raises(InputError, match=r"intensities 10 and 900 as 0 and 1.*give --window"):
        train([store], tmp_path / "b", SMALL.model_copy(update=fixed))
    assert not (tmp_path / "b").exists()
    train([store], tmp_path / "b", windowed.model_copy(update=first))
    train([store], tmp_path / "c", windowed.model_copy(update={**fixed, "window": (5.0, 700.0)}))


@pytest.mark.parametrize("done", [False, True])
def test_the_model_that_was_started_from_may_be_gone_by_then(store, tmp_path, monkeypatch, done):
    first, second = tmp_path / "first", tmp_path / "second"
    train([store], first, SMALL)
    settings = SMALL.model_copy(update={"init": first})

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if not done:
            patched.setattr("isosr_pipeline.steps.train.optimise", interrupted)
        with pytest.raises(KeyboardInterrupt) if not done else nullcontext():
            train([store], second, settings)
    before = read_description(first).weights_sha256
    shutil.rmtree(first)
    train([store], second, settings, if_exists="resume")
    assert read_description(second).training["run"]["init"]["sha256"] == before
    weights = (second / WEIGHTS).read_bytes()
    with pytest.raises(ModelFormatError, match="not a model"):
        train([store], second, settings, if_exists="overwrite")
    assert (second / WEIGHTS).read_bytes() == weights


def test_a_model_of_another_kind_is_not_started_from(store, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train([store], first, SMALL)
    other = SMALL.model_copy(update={"init": first, "width": 8, "blur": "unet", "start": "random"})
    with pytest.raises(ModelConfigError) as found:
        train([store], second, other)
    for text in ("width is 8 here and 4 there", "blur is 'unet' here", "start is 'random' here"):
        assert text in str(found.value)
    assert not second.exists()
    train([store], second, SMALL)
    with pytest.raises(ModelConfigError):
        train([store], second, other, if_exists="overwrite")
    assert read_description(second)
    with pytest.raises(InputError, match="another path"):
        train([store], first, SMALL.model_copy(update={"init": first}), if_exists="overwrite")
    with pytest.raises(ModelFormatError, match="not a model"):
        train([store], tmp_path / "third", SMALL.model_copy(update={"init": tmp_path / "gone"}))
    assert read_description(first)
