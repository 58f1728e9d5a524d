"""Training and restoring with ``self-net``: all that other methods have, it has too."""

from __future__ import annotations

import csv
import json
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from isosr_models.errors import ModelConfigError
from isosr_models.methods import create_objective
from isosr_models.model_folder import load_restorer, read_description
from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.explaining import explain
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.settings import RestoreSettings
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.previews import find_previews
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.settings import OTCycleGANSettings, SelfNetSettings, TrainSettings

WINDOW = (100.0, 1500.0)
SMALL = SelfNetSettings(
    width=4, blocks=0, critic_width=4, patch=24, patches=2, crop=24, iterations=4, device="cpu"
)


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (14, 40, 44)).astype(np.uint16)
    return make_store(voxels, voxel_size=(2.5, 1.0, 1.0)).path


def test_a_model_is_trained_described_and_restores_block_by_block(store, tmp_path, cluster):
    model = tmp_path / "model"
    train([store], model, SMALL.model_copy(update={"preview_every": 2, "learning_rate": 0.01}))
    description = read_description(model)
    assert description.method == "self-net"
    assert description.network.model_dump() == {
        "kind": "slice-resnet",
        "width": 4,
        "blocks": 0,
        "residual": True,
    }
    rows = list(csv.DictReader((model / LOSSES).read_text().splitlines()))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    losses = {"adversarial", "cycle", "deblurring", "discrimination"}
    assert set(rows[0]) == {"iteration", *losses}
    assert [path.stem for path in find_previews(model)] == ["000001", "000002", "000004"]
    out = tmp_path / "restored.zarr"
    blocks = {"block": (20, 32, 32), "chunk": 16, "shard": 64, "precision": "32"}
    settings = RestoreSettings(**blocks, device="cpu", window=WINDOW)
    restore(store, str(model), out, settings, cluster)
    found = np.asarray(Volume(out).arrays[0][0]).astype(np.float32)
    assert np.abs(found - _at_once(store, model)).max() < 0.51


def _at_once(store, model):
    """Restore a volume as a whole, with its reflection around it, in stored intensities."""
    view, restorer = IsotropicView(Volume(store)), load_restorer(model)
    halo = restorer.halo
    around = Box(Zyx(*3 * (-halo,)), Zyx(*(n + halo for n in view.shape)))
    low, high = WINDOW
    block = torch.from_numpy((view.read(0, around) - low) / (high - low))[None, None]
    keep = tuple(slice(halo, halo + n) for n in view.shape)
    restored = restorer(block, keep)[0, 0].numpy() * (high - low) + low
    assert np.abs(restored - view.read(0, Box.whole(view.shape))).max() > 10
    return restored.clip(0)


@pytest.mark.parametrize("change", [{}, {"average": 0.9, "batch": 2}])
def test_interrupted_and_resumed_gives_the_same_weights(store, tmp_path, change):
    settings = SMALL.model_copy(update={"iterations": 12, **change})
    train([store], tmp_path / "straight", settings)

    def interrupt_after_a_step():
        table = tmp_path / "model" / LOSSES
        while not (table.exists() and len(table.read_text().splitlines()) > 2):
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=interrupt_after_a_step, daemon=True).start()
    with pytest.raises(InterruptedRunError, match="--resume"):
        train([store], tmp_path / "model", settings)
    train([store], tmp_path / "model", settings, if_exists="resume")
    expected = load_file(tmp_path / "straight" / "weights.safetensors")
    resumed = load_file(tmp_path / "model" / "weights.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in resumed.items())
    assert (tmp_path / "model" / LOSSES).read_text() == (tmp_path / "straight" / LOSSES).read_text()


def test_planes_are_as_coarse_to_the_objective_as_to_the_store(store, tmp_path, monkeypatch):
    seen = []

    def recorded(*arguments):
        seen.append(arguments[-1])
        return create_objective(*arguments)

    monkeypatch.setattr("isosr_pipeline.steps.train.create_objective", recorded)
    train([store], tmp_path / "model", SMALL.model_copy(update={"iterations": 1}))
    assert seen == [2.5]


def test_a_model_is_trained_further_and_by_its_own_method_only(store, tmp_path):
    train([store], tmp_path / "first", SMALL)
    further = SMALL.model_copy(update={"init": tmp_path / "first", "iterations": 1})
    train([store], tmp_path / "second", further)
    record = read_description(tmp_path / "second").training["run"]
    assert record["init"]["path"].endswith("first")
    deeper = further.model_copy(update={"blocks": 1})
    with pytest.raises(ModelConfigError, match="blocks is 1 here and 0 there"):
        train([store], tmp_path / "third", deeper)
    other = OTCycleGANSettings(
        width=4, crop=32, iterations=1, device="cpu", init=tmp_path / "first"
    )
    with pytest.raises(ModelConfigError, match="method is 'ot-cyclegan' here and 'self-net' there"):
        train([store], tmp_path / "third", other)
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop": 32}, r"patch: is cut from crops, whose shortest side is 32.*found 64"),
        ({"patch": 200}, r"patch: is cut from crops, whose shortest side is 144.*found 200"),
        ({"patch": 23}, r"patch: .*24.*found 23"),
        ({"downsampling": 0.5}, r"downsampling: .*1.*found 0\.5"),
        ({"planes": 3}, "planes: self-net has no such parameter; it is one of ot-cyclegan"),
        ({"preset": "cfm"}, "preset: self-net has no such parameter; it is one of ot-cyclegan"),
        ({"freeze_norm": 0.1}, "freeze_norm: self-net has no such parameter"),
        ({"patchs": 3}, "patchs: is not known; did you mean patch"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_told(given, message):
    with pytest.raises(ValidationError) as found:
        TrainSettings.model_validate({"method": "self-net", **given})
    assert re.search(message, explain(found.value, TrainSettings))


def test_the_command_line_and_brain_files_know_it(store, tmp_path, isosr, capsys):
    options = ["--width", 4, "--blocks", 0, "--critic-width", 4, "--patch", 24, "--patches", 2]
    options += ["--crop", 24, "--downsampling", 3, "--no-noise", "--feedback-weight", 0.5]
    options += ["--ssim-weight", 2, "--iterations", 1, "--device", "cpu"]
    assert isosr("train", store, tmp_path / "model", "--method", "self-net", *options) == 0
    run = json.loads((tmp_path / "model" / "model.json").read_text())["training"]["run"]
    assert (run["method"], run["downsampling"], run["noise"]) == ("self-net", 3.0, False)
    assert (run["feedback_weight"], run["ssim_weight"]) == (0.5, 2.0)
    brain = {
        "source": "s",
        "output": "o",
        "train": {"method": "self-net", "blocks": 2, "noise": False},
    }
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    settings = read_brain(tmp_path / "brain.yaml").train
    assert isinstance(settings, SelfNetSettings)
    assert (settings.blocks, settings.noise, settings.beta1) == (2, False, 0.5)
