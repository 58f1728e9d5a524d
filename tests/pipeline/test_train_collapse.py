from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from isosr_models import checkpoint
from isosr_models.checkpoint import CHECKPOINT, FAILURE, GOOD, PREVIOUS, read_progress
from isosr_models.errors import CollapsedError, DivergedError
from isosr_models.model_folder import read_description
from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_pipeline import training, watching
from isosr_pipeline.errors import ResumeError
from isosr_pipeline.settings import TrainSettings
from isosr_pipeline.steps.train import train
from isosr_pipeline.watching import Watch

SMALL = TrainSettings(width=4, crop=(32, 32, 32), planes=2, iterations=6, device="cpu")


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


def _nan_from(step: int, monkeypatch) -> None:
    """Make the objective's losses NaN from the n-th step on."""
    take, count = OTCycleGAN.step, 0

    def poisoned(self, crops):
        nonlocal count
        count += 1
        return take(self, crops * (float("nan") if count >= step else 1.0))

    monkeypatch.setattr(OTCycleGAN, "step", poisoned)


def test_a_loss_that_is_nan_leaves_a_good_checkpoint(store, tmp_path, often, monkeypatch):
    model = tmp_path / "model"
    with monkeypatch.context() as patched:
        _nan_from(4, patched)
        with pytest.raises(DivergedError, match=r"nan.*iteration 3 is kept.*--resume.*--seed"):
            train([store], model, SMALL)
    assert read_progress(model).iterations == 3
    assert json.loads((model / FAILURE).read_text())["iteration"] == 3
    wider = SMALL.model_copy(update={"width": 8})
    with pytest.raises(ResumeError, match="width was 4 and is 8"):
        train([store], model, wider, if_exists="resume")
    gentler = SMALL.model_copy(update={"learning_rate": 1e-5, "seed": 1})
    train([store], model, gentler, if_exists="resume")
    done = read_description(model).training
    assert done["iterations"] == 6
    assert "learning_rate was 0.0001 and is 1e-05" in done["failures"][0]["changed"]
    assert not list(model.glob("checkpoint*"))
    assert not (model / FAILURE).exists()


def test_a_breakdown_frees_nothing_once_it_is_gone_on_from(store, tmp_path, often, monkeypatch):
    model = tmp_path / "model"
    with monkeypatch.context() as patched:
        _nan_from(3, patched)
        with pytest.raises(DivergedError):
            train([store], model, SMALL)

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    gentler = SMALL.model_copy(update={"learning_rate": 1e-5})
    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.steps.train.optimise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([store], model, gentler, if_exists="resume")
    with pytest.raises(ResumeError, match=r"learning_rate was 1e-05 and is 0\.0001"):
        train([store], model, SMALL, if_exists="resume")
    train([store], model, gentler, if_exists="resume")
    assert len(read_description(model).training["failures"]) == 1


@pytest.mark.parametrize("start", ["identity", "random"])
def test_a_learning_rate_of_a_thousand_is_told(store, tmp_path, often, monkeypatch, start):
    monkeypatch.setattr(watching, "FLAT_STEPS", 20)
    monkeypatch.setattr(watching, "CONSTANT_STEPS", 20)
    change = {"learning_rate": 1e3, "iterations": 200, "start": start}
    with pytest.raises(DivergedError, match="smaller --learning-rate"):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))
    kept = checkpoint._newest(tmp_path / "model")
    weights = load_file(kept).values()
    assert all(w.isfinite().all() for w in weights if w.is_floating_point())


def test_a_restorer_that_gives_a_constant_is_told(store, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "CONSTANT_STEPS", 20)
    make = OTCycleGAN.__init__

    def zeroed(self, *arguments):
        make(self, *arguments)
        torch.nn.init.zeros_(self.generator.head[-1].weight)
        self.generator.head.requires_grad_(False)

    monkeypatch.setattr(OTCycleGAN, "__init__", zeroed)
    change = {"start": "random", "iterations": 60, "learning_rate": 1e-6}
    with pytest.raises(CollapsedError, match=r"nearly constant.*at least 0\.01.*iteration 0"):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))


def test_losses_that_stand_still_are_told(monkeypatch):
    monkeypatch.setattr(watching, "FLAT_STEPS", 30)
    watch = Watch()
    for step in range(31):
        assert watch.is_calm == (step <= watching._SUSPICIOUS)
        losses = {"cycle": 1 / (step + 1), "critics": 3.0 + 1e-7 * (step % 2)}
        if step < 30:
            watch.see(losses, lambda: (1.0, 1.0))
            continue
        with pytest.raises(CollapsedError, match=r"'critics' has been 3 for 30 steps"):
            watch.see(losses, lambda: (1.0, 1.0))


def test_slow_losses_and_empty_crops_are_no_collapse(monkeypatch):
    monkeypatch.setattr(watching, "FLAT_STEPS", 20)
    monkeypatch.setattr(watching, "CONSTANT_STEPS", 20)
    watch = Watch()
    for step in range(200):
        watch.see({"cycle": 1.0 - 1e-6 * step}, lambda: (0.0, 0.0))


def test_the_last_two_checkpoints_and_the_last_good_one_are_kept(
    store, tmp_path, often, monkeypatch
):
    model = tmp_path / "model"
    monkeypatch.setattr(watching.Watch, "is_calm", property(lambda self: self._steps < 3))

    def killed(path, _objective, progress, **_options):
        save(path, _objective, progress, **_options)
        if progress.iterations == 5:
            raise KeyboardInterrupt

    save = training.save_checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(training, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train([store], model, SMALL)
    found = {}
    for name in (CHECKPOINT, PREVIOUS, GOOD):
        monkeypatch.setattr(checkpoint, "_newest", lambda folder, name=name: folder / name)
        found[name] = read_progress(model).iterations
    assert found == {CHECKPOINT: 5, PREVIOUS: 4, GOOD: 2}


def test_a_checkpoint_that_was_cut_short_leaves_the_one_before(store, tmp_path, often, monkeypatch):
    model = tmp_path / "model"
    with monkeypatch.context() as patched:
        _nan_from(1, patched)
        with pytest.raises(DivergedError):
            train([store], model, SMALL)
    (model / FAILURE).unlink()
    checkpoint._keep(model / CHECKPOINT, model / PREVIOUS)
    (model / CHECKPOINT).unlink()
    (model / CHECKPOINT).write_bytes((model / PREVIOUS).read_bytes()[:1000])
    train([store], model, SMALL, if_exists="resume")
    assert read_description(model).training["iterations"] == 6


def test_the_command_fails_with_1_and_says_what_to_do(isosr, store, tmp_path, capsys, monkeypatch):
    _nan_from(2, monkeypatch)
    options = ["--iterations", 3, "--crop", 32, "--width", 4, "--device", "cpu"]
    assert isosr("train", store, tmp_path / "model", *options) == 1
    assert "--resume" in capsys.readouterr().err
