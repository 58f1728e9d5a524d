from __future__ import annotations

import json

import numpy as np
import pytest

from isosr_models.model_folder import DESCRIPTION, save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.errors import ResumeError
from isosr_pipeline.settings import TrainSettings
from isosr_pipeline.steps.train import train

SMALL = TrainSettings(width=4, crop=(32, 32, 32), planes=2, iterations=4, device="cpu")


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


def test_a_training_keeps_the_precision_that_was_chosen_for_it(store, tmp_path, monkeypatch):
    """As when it goes on without the GPU that it began on."""
    model = tmp_path / "model"

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.resuming.choose_precision", lambda _settings: "bf16")
        patched.setattr("isosr_pipeline.steps.train.optimise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([store], model, SMALL)
    with pytest.raises(ResumeError, match=r"precision was 'bf16' and is '32'.*--precision bf16"):
        train([store], model, SMALL, if_exists="resume")
    half = SMALL.model_copy(update={"precision": "bf16"})
    train([store], model, half, if_exists="resume")
    # What is trained can be used anywhere.
    train([store], model, SMALL, if_exists="resume")


def test_a_model_that_does_not_say_how_it_was_trained_is_not_resumed(
    isosr, make_store, tmp_path, capsys
):
    store = make_store(np.zeros((36, 40, 44), np.uint16)).path
    model = tmp_path / "model"
    save_model(
        model,
        {"generator": UNet3d(4, residual=True)},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    before = (model / DESCRIPTION).read_text()
    options = ["--iterations", 1, "--crop", 32, "--width", 4, "--resume"]
    assert isosr("train", store, model, *options) == 2
    shown = capsys.readouterr().err
    assert "training has no 'run'" in shown
    assert "--overwrite" in shown
    assert json.loads((model / DESCRIPTION).read_text()) == json.loads(before)
