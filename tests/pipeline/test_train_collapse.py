from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from isosr_models import checkpoint
from isosr_models.checkpoint import CHECKPOINT, FAILURE, GOOD, PREVIOUS, read_progress
from isosr_models.errors import CollapsedError, DivergedError
from isosr_models.model_folder import read_description
from isosr_models.ot_cyclegan import Contrast, OTCycleGAN
from isosr_pipeline.errors import InterruptedRunError, ResumeError
from isosr_pipeline.steps.train import train
from isosr_pipeline.training import loop as training
from isosr_pipeline.training import watching
from isosr_pipeline.training.settings import OTCycleGANSettings
from isosr_pipeline.training.watching import Watch

SMALL = OTCycleGANSettings(width=4, crop=(32, 32, 32), planes=2, iterations=6, device="cpu")


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
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)
    change = {"learning_rate": 1e3, "iterations": 200, "start": start}
    with pytest.raises(DivergedError, match="smaller --learning-rate"):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))
    kept = checkpoint._newest(tmp_path / "model")
    weights = load_file(kept).values()
    assert all(w.isfinite().all() for w in weights if w.is_floating_point())


@pytest.fixture
def made(monkeypatch):
    """Change an objective as soon as it is made."""
    make = OTCycleGAN.__init__

    def changed(change):
        def changed_init(self, *arguments):
            make(self, *arguments)
            change(self)

        monkeypatch.setattr(OTCycleGAN, "__init__", changed_init)

    return changed


def test_a_restorer_that_gives_a_constant_is_told(store, tmp_path, monkeypatch, made):
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)

    def zeroed(objective):
        torch.nn.init.zeros_(objective.generator.head[-1].weight)
        objective.generator.head.requires_grad_(False)

    made(zeroed)
    change = {"start": "random", "iterations": 60, "learning_rate": 1e-6}
    with pytest.raises(CollapsedError, match=r"less than 0\.01 of the contrast.*iteration 0"):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))


class _Cancelling(torch.nn.Module):
    """What a U-Net adds to its input when all that is left of both is a constant."""

    def __init__(self, network):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        network.register_forward_pre_hook(lambda _m, given: setattr(self, "given", given[0]))

    def forward(self, _features):
        return self.weight * 0.3 - self.given


def test_a_network_that_cancels_its_input_is_told(store, tmp_path, monkeypatch, made):
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)
    made(lambda objective: setattr(objective.generator, "head", _Cancelling(objective.generator)))
    change = {"iterations": 60, "preview_every": 0}
    with pytest.raises(CollapsedError, match=r"less than 0\.01 of the contrast"):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))


@pytest.mark.parametrize("was_busy", [True, False])
def test_a_network_that_has_died_is_told(store, tmp_path, monkeypatch, was_busy):
    """The output is the input and a constant: as at the beginning, where that is all right."""
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)
    step, taken = OTCycleGAN.step, []

    def dying(self, crops):
        taken.append(crops)
        if len(taken) == 12 or not was_busy:
            torch.nn.init.zeros_(self.generator.head[0].weight)
            self.generator.head.requires_grad_(False)
        return step(self, crops)

    monkeypatch.setattr(OTCycleGAN, "step", dying)
    settings = SMALL.model_copy(update={"iterations": 45, "learning_rate": 1e-2})
    if was_busy:
        with pytest.raises(CollapsedError, match="added nothing but a constant"):
            train([store], tmp_path / "model", settings)
    else:
        train([store], tmp_path / "model", settings)


HEALTHY = Contrast(1.0, 1.0, 0.1)


def _seen(losses, contrast=HEALTHY) -> Watch:
    watch = Watch()
    for value in losses:
        watch.see({"cycle": value}, lambda: contrast)
    return watch


def test_losses_that_stand_still_are_told(monkeypatch):
    monkeypatch.setattr(watching, "FLAT_STEPS", 30)
    watch = Watch()
    for step in range(30):
        assert watch.is_calm == (step < watching._SUSPICIOUS)
        losses = {"cycle": 1 / (step + 1), "critics": 3.0 + 2e-4 * (step % 2)}
        if step < 29:
            watch.see(losses, lambda: HEALTHY)
            continue
        with pytest.raises(CollapsedError, match=r"'critics' has been 3\.0002 for 30 steps"):
            watch.see(losses, lambda: HEALTHY)


@pytest.mark.parametrize("size", [1e-5, 1.0])
def test_slow_losses_and_empty_crops_are_no_collapse(monkeypatch, size):
    monkeypatch.setattr(watching, "FLAT_STEPS", 20)
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)
    watch = _seen((size * (1.0 - 1e-5 * step) for step in range(200)), Contrast(1e-5, 0.0, 0.0))
    assert watch.steps == 200


@pytest.mark.parametrize("restored", [2.0, 0.001])
def test_what_is_restored_must_have_the_contrast_of_something(monkeypatch, restored):
    monkeypatch.setattr(watching, "ASTRAY_STEPS", 20)
    losses = [0.01 + 0.001 * (step % 3) for step in range(20)]
    assert _seen(losses, Contrast(0.15, restored if restored > 1 else 0.002, 0.1)).is_calm
    with pytest.raises(CollapsedError, match="contrast of the input"):
        _seen(losses, Contrast(0.015 if restored > 1 else 0.15, restored, 0.1))


def test_a_loss_that_blows_up_is_told_and_a_peak_is_not():
    calm = [0.003 + 0.001 * (step % 3) for step in range(100)]
    # The first values tell nothing yet: the identity's cycle is next to nothing.
    assert _seen([1e-8, 1e-4, 0.9, *calm]).is_calm
    assert not _seen([*calm, 1.5]).is_calm
    assert _seen([*calm, 1.5, 0.003]).is_calm
    for peaks in range(5):
        _seen([*calm, *[1e5] * 9 * peaks, 0.003]).conclude()
    with pytest.raises(
        CollapsedError, match=r"for 50 steps.*'cycle'.*100 times its median of 0\.01"
    ):
        _seen([*calm, *[1.5e5] * 50])
    with pytest.raises(CollapsedError, match="for 10 steps the loss 'cycle'"):
        _seen([*calm, *[1.5e5] * 10]).conclude()


def _blowing_up_from(step: int, monkeypatch) -> None:
    """Make the objective's blur useless, with finite losses, before the n-th step."""
    take, taken = OTCycleGAN.step, []

    def spoilt(self, crops):
        taken.append(crops)
        if len(taken) == step:
            with torch.no_grad():
                self.blur.layers[0].weight.mul_(1e9)
        return take(self, crops)

    monkeypatch.setattr(OTCycleGAN, "step", spoilt)


def test_what_has_blown_up_replaces_no_good_checkpoint(store, tmp_path, often, monkeypatch):
    monkeypatch.setattr(watching, "OUTSIDE_STEPS", 4)
    _blowing_up_from(5, monkeypatch)
    settings = SMALL.model_copy(update={"iterations": 12})
    with pytest.raises(CollapsedError, match=r"blown up.*iteration 4 is kept"):
        train([store], tmp_path / "model", settings)
    assert read_progress(tmp_path / "model").iterations == 4


def test_suspicion_outlasts_an_interruption(store, tmp_path, monkeypatch):
    """A training that has blown up does not look healthy to whoever sees only what follows."""
    model = tmp_path / "model"
    settings = SMALL.model_copy(update={"iterations": 12})
    with monkeypatch.context() as patched:
        _blowing_up_from(4, patched)
        patched.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        see = Watch.see

        def interrupted(self, losses, contrast):
            see(self, losses, contrast)
            if self.steps == 6:
                signal.raise_signal(signal.SIGTERM)

        patched.setattr(Watch, "see", interrupted)
        with pytest.raises(InterruptedRunError):
            train([store], model, settings)
    assert read_progress(model).watch["outside"]["cycle"] == 3
    shutil.copytree(model, tmp_path / "copy")
    with monkeypatch.context() as patched:
        patched.setattr(watching, "OUTSIDE_STEPS", 5)
        with pytest.raises(CollapsedError, match="iteration 3 is kept"):
            train([store], model, settings, if_exists="resume")
    # Nor is it saved as a model by giving it an end that has been reached.
    monkeypatch.setattr(watching, "_SUSPICIOUS", 3)
    ended = settings.model_copy(update={"iterations": 5})
    with pytest.raises(CollapsedError, match="iteration 3 is kept"):
        train([store], tmp_path / "copy", ended, if_exists="resume")


def test_the_last_two_checkpoints_and_the_last_good_one_are_kept(
    store, tmp_path, often, monkeypatch
):
    model = tmp_path / "model"
    monkeypatch.setattr(watching.Watch, "is_calm", property(lambda self: self.steps < 3))

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
