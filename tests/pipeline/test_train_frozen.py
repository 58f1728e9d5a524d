"""The last part of training, in which normalisation is frozen."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from isosr_models.model_folder import load_restorer
from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.steps.train import train
from isosr_pipeline.training.settings import OTCycleGANSettings

SMALL = OTCycleGANSettings(
    width=4, crop=(32, 32, 32), planes=1, iterations=10, device="cpu", average=0.9
)


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


@pytest.mark.parametrize(("share", "frozen"), [(0.0, 0), (0.1, 1), (0.35, 3), (0.5, 5)])
def test_the_last_share_of_the_iterations_is_frozen(store, tmp_path, steps, share, frozen):
    train([store], tmp_path / "model", SMALL.model_copy(update={"freeze_norm": share}))
    assert steps == [False] * (10 - frozen) + [True] * frozen


def test_the_last_share_of_the_minutes_is_frozen(store, tmp_path, steps):
    update = {"iterations": None, "minutes": 0.03, "freeze_norm": 0.5}
    train([store], tmp_path / "model", SMALL.model_copy(update=update))
    assert steps == sorted(steps)
    assert not steps[0]
    assert steps[-1]


def test_what_was_trained_with_frozen_statistics_keeps_them(store, tmp_path, monkeypatch):
    kept = {}
    freeze = OTCycleGAN.freeze_norm

    def recorded(self, crops):
        freeze(self, crops)
        kept.update({k: v.clone() for k, v in self.restorer.state_dict().items()})

    monkeypatch.setattr(OTCycleGAN, "freeze_norm", recorded)
    train([store], tmp_path / "model", SMALL.model_copy(update={"freeze_norm": 0.5}))
    saved = load_file(tmp_path / "model" / "weights.safetensors")
    for name, value in kept.items():
        same = torch.equal(saved[f"generator.{name}"], value)
        assert same == ("running" in name or "num_batches" in name), name


def test_without_a_frozen_part_the_end_is_calibrated(store, tmp_path, monkeypatch):
    calibrated = []
    monkeypatch.setattr(
        "isosr_pipeline.steps.train.calibrate", lambda network, _crops: calibrated.append(network)
    )
    for share in (0.0, 0.5):
        settings = SMALL.model_copy(update={"freeze_norm": share, "iterations": 2})
        train([store], tmp_path / f"model{share}", settings)
    assert len(calibrated) == 1


@pytest.mark.parametrize("after", [2, 5, 7], ids=["before", "as it begins", "in it"])
def test_interrupted_and_resumed_gives_the_same_weights(store, tmp_path, monkeypatch, after):
    settings = SMALL.model_copy(update={"freeze_norm": 0.5})
    train([store], tmp_path / "straight", settings)
    step, taken = OTCycleGAN.step, []

    def interrupted(self, crops):
        taken.append(self.norm_frozen)
        if len(taken) == after:
            signal.raise_signal(signal.SIGTERM)
        return step(self, crops)

    with monkeypatch.context() as patched:
        patched.setattr(OTCycleGAN, "step", interrupted)
        with pytest.raises(InterruptedRunError, match=f"iteration {after};"):
            train([store], tmp_path / "model", settings)
    assert taken[-1] == (after > 5)
    train([store], tmp_path / "model", settings, if_exists="resume")
    expected = load_file(tmp_path / "straight" / "weights.safetensors")
    resumed = load_file(tmp_path / "model" / "weights.safetensors")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.items())


def test_all_options_together_train_a_model(store, isosr, tmp_path):
    options = ["--iterations", 4, "--crop", 32, "--width", 4, "--planes", 1, "--device", "cpu"]
    own = ["--projections", "--shared-axial", "--bottleneck-norm", "false"]
    more = ["--gradient-checkpointing", "--freeze-norm", 0.5, "--average", 0.9]
    assert isosr("train", store, tmp_path / "model", *options, *own, *more) == 0
    restorer = load_restorer(tmp_path / "model")
    assert restorer(torch.rand(1, 1, 64, 64, 64), (slice(28, 36),) * 3).isfinite().all()
    assert isosr("psf", tmp_path / "model") == 0


def test_a_share_that_is_none_is_refused(store, isosr, tmp_path, capsys):
    assert isosr("train", store, tmp_path / "m", "--iterations", 1, "--freeze-norm", 1) == 2
    assert "--freeze-norm: " in capsys.readouterr().err
