from __future__ import annotations

import json

import numpy as np

from isosr_models.model_folder import DESCRIPTION, save_model
from isosr_models.unet import UNet3d


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
