from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

from isosr_models.model_folder import DESCRIPTION, load_restorer, read_description, save_model
from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_models.unet import UNet3d
from isosr_pipeline.errors import InterruptedRunError, ResumeError
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.steps.train import train
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.settings import OTCycleGANSettings
from isosr_pipeline.training.watching import Watch

SMALL = OTCycleGANSettings(width=4, crop=(32, 32, 32), planes=2, iterations=4, device="cpu")


class Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


def _interrupt_at(iteration, store, model, settings, steps, monkeypatch):
    """Train until a step, and stop as if asked to."""
    with monkeypatch.context() as patched:
        step = OTCycleGAN.step

        def interrupted(self, crops):
            losses = step(self, crops)
            if len(steps) == iteration:
                signal.raise_signal(signal.SIGTERM)
            return losses

        patched.setattr(OTCycleGAN, "step", interrupted)
        with pytest.raises(InterruptedRunError, match=f"iteration {iteration};"):
            train([store], model, settings)
    steps.clear()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_normalisation_is_released_where_the_end_has_been_moved(
    store, tmp_path, steps, monkeypatch, average
):
    """Its last fifth is frozen, and nothing that turned out not to be of that."""
    model = tmp_path / "model"
    change = {"iterations": 10, "freeze_norm": 0.2, "average": average}
    settings = SMALL.model_copy(update=change)
    _interrupt_at(9, store, model, settings, steps, monkeypatch)
    longer = settings.model_copy(update={"iterations": 20})
    train([store], model, longer, if_exists="resume")
    assert steps == [False] * (16 - 9) + [True] * 4


@pytest.mark.parametrize("end", [5, 3])
def test_no_step_is_taken_beyond_an_end_that_has_been_reached(
    store, tmp_path, steps, monkeypatch, end
):
    model = tmp_path / "model"
    settings = SMALL.model_copy(update={"iterations": 10})
    _interrupt_at(5, store, model, settings, steps, monkeypatch)
    train([store], model, settings.model_copy(update={"iterations": end}), if_exists="resume")
    assert steps == []
    assert read_description(model).training["iterations"] == 5
    block, keep = torch.rand(1, 1, 64, 64, 64), (slice(28, 36),) * 3
    assert load_restorer(model)(block, keep).isfinite().all()


def test_a_table_of_losses_that_is_gone_begins_again(store, tmp_path, steps, monkeypatch):
    model, notes = tmp_path / "model", Notes()
    settings = SMALL.model_copy(update={"iterations": 6})
    _interrupt_at(2, store, model, settings, steps, monkeypatch)
    (model / LOSSES).unlink()
    steps.extend([False] * 2)
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "see", _stopping_after(2))
        with pytest.raises(InterruptedRunError, match="iteration 4;"):
            train([store], model, settings, if_exists="resume", reporter=notes)
    assert any("losses.csv is gone, and begins again after iteration 2" in n for n in notes.lines)
    with (model / LOSSES).open("a") as table:
        table.write("5,9,9,9\n6,9")
    train([store], model, settings, if_exists="resume")
    rows = [line.split(",") for line in (model / LOSSES).read_text().splitlines()]
    assert [row[0] for row in rows] == ["iteration", "3", "4", "5", "6"]
    assert rows[3][1:] != ["9", "9", "9"]


def _stopping_after(steps):
    """Return what sees losses, and asks training to stop after some of them."""
    seen = []

    def see(_watch, losses, _contrast):
        seen.append(losses)
        if len(seen) == steps:
            signal.raise_signal(signal.SIGTERM)

    return see


def test_a_training_keeps_the_precision_that_was_chosen_for_it(store, tmp_path, monkeypatch):
    """As when it goes on without the GPU that it began on."""
    model = tmp_path / "model"

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            "isosr_pipeline.training.resuming.choose_precision", lambda _settings: "bf16"
        )
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


def test_no_job_is_queued_for_a_model_that_is_trained(store, tmp_path, isosr, capsys, monkeypatch):
    model, site = tmp_path / "model", tmp_path / "site.yaml"
    train([store], model, SMALL)
    site.write_text("cpu: {cores: 1, memory: 1 GB, walltime: '1:00:00'}")
    # No SLURM of this machine's.
    monkeypatch.setenv("PATH", "/nonexistent")
    command = ["train", store, model, "--width", 4, "--crop", 32, "--planes", 2, "--device", "cpu"]
    command += ["--resume", "--cluster", site]
    assert isosr(*command, "--iterations", 4) == 0
    assert f"{model} is trained already" in capsys.readouterr().err
    assert isosr(*command, "--iterations", 5) == 2
    assert "was trained in another way" in capsys.readouterr().err
