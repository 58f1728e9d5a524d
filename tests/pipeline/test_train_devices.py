from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from isosr_models.checkpoint import read_progress
from isosr_models.errors import DivergedError
from isosr_models.model_folder import WEIGHTS, load_restorer, read_description
from isosr_pipeline.errors import InputError, InterruptedRunError
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.steps.train import train
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.settings import OTCycleGANSettings

SMALL = OTCycleGANSettings(
    width=4, crop=(32, 32, 32), planes=2, iterations=4, device="cpu", threads=1, preview_every=0
)
TWO = {"devices": 2}


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


def _losses(model):
    return np.loadtxt(model / LOSSES, delimiter=",", skiprows=1)


def test_two_processes_that_are_interrupted_equal_one_with_twice_the_batch(store, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    change = {"learning_rate": 1e-3, "average": 0.9, "iterations": 8}
    train([store], one, SMALL.model_copy(update={**change, "batch": 2}))
    settings = SMALL.model_copy(update={**change, **TWO})

    def interrupt_after_a_step():
        while not ((two / LOSSES).exists() and len((two / LOSSES).read_text().splitlines()) > 2):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt_after_a_step, daemon=True).start()
    with pytest.raises(InterruptedRunError, match="--resume"):
        train([store], two, settings)
    assert 2 <= read_progress(two).iterations < 8
    train([store], two, settings, if_exists="resume")
    expected, found = load_file(one / WEIGHTS), load_file(two / WEIGHTS)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        # A bias before normalisation has no gradient but rounding, which Adam makes a step of.
        if key.endswith("weight"):
            difference = (found[key] - value).abs()
            # Rounding, which depends on the processor, moves single weights by part of a step.
            assert difference.mean() < 2e-4, key
            assert difference.max() < 2e-3, key
    crop = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(1))
    keep = (slice(28, 36),) * 3
    from_one, from_two = (load_restorer(model)(crop, keep) for model in (one, two))
    assert (from_one - from_two).abs().max() < 1e-3
    assert (from_one - crop[:, :, *keep]).abs().max() > 1e-2
    assert np.allclose(_losses(one), _losses(two), rtol=2e-3, atol=1e-5)
    assert read_description(two).training["run"]["devices"] == 2


def test_errors_of_other_processes_are_told_as_they_are(store, tmp_path):
    with pytest.raises(InputError, match="crop is 64 along z"):
        train([store], tmp_path / "model", SMALL.model_copy(update={**TWO, "crop": (64, 32, 32)}))


def test_two_processes_diverge_together(store, tmp_path):
    settings = SMALL.model_copy(update={**TWO, "learning_rate": 1e3, "iterations": 250})
    with pytest.raises(DivergedError, match="iteration 0 is kept"):
        train([store], tmp_path / "model", settings)
    assert read_progress(tmp_path / "model").iterations == 0


@pytest.mark.parametrize("blur", ["deep-linear", "unet"])
def test_bfloat16_trains_nearly_as_float32(store, tmp_path, blur):
    half = {"precision": "bf16", "blur": blur}
    train([store], tmp_path / "half", SMALL.model_copy(update=half))
    train([store], tmp_path / "full", SMALL.model_copy(update={"blur": blur}))
    assert np.allclose(_losses(tmp_path / "half"), _losses(tmp_path / "full"), rtol=0.1, atol=0.01)
    assert not np.array_equal(_losses(tmp_path / "half"), _losses(tmp_path / "full"))
    weights = load_file(tmp_path / "half" / WEIGHTS)
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


class _Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def _compiled_by(backend, monkeypatch):
    """Have networks compiled by another backend, which needs no compiler."""
    # Backends are remembered by where they lie in memory, which another may take.
    torch.compiler.reset()
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled(self, backend=backend))


def test_compiled_networks_train_as_others_do(store, tmp_path, monkeypatch):
    calls = []

    def counted(graph, _inputs):
        calls.append(graph)
        return graph.forward

    _compiled_by(counted, monkeypatch)
    notes = _Notes()
    train([store], tmp_path / "one", SMALL.model_copy(update={"compile": True}), reporter=notes)
    train([store], tmp_path / "two", SMALL)
    assert calls
    assert not any("not compiled" in line for line in notes.lines)
    assert np.allclose(_losses(tmp_path / "one"), _losses(tmp_path / "two"), rtol=1e-4, atol=1e-6)


def test_pictures_and_calibration_compile_nothing(store, tmp_path, monkeypatch):
    """One graph before and one after normalisation is frozen, and steps run them to the end."""
    compiled, run = [], []

    def counted(graph, _inputs):
        compiled.append(graph)

        def call(*arguments):
            run.append(graph)
            return graph.forward(*arguments)

        return call

    _compiled_by(counted, monkeypatch)
    change = {"compile": True, "freeze_norm": 0.5, "preview_every": 1, "iterations": 6}
    train([store], tmp_path / "one", SMALL.model_copy(update=change))
    train([store], tmp_path / "two", SMALL.model_copy(update={**change, "compile": False}))
    assert len(compiled) == 2
    # One more is the trial before the first step.
    assert [run.count(graph) for graph in compiled] == [1 + 3, 3]
    assert np.allclose(_losses(tmp_path / "one"), _losses(tmp_path / "two"), rtol=1e-4, atol=1e-6)


def test_where_compiling_fails_training_goes_on_without(store, tmp_path, monkeypatch):
    def broken(_graph, _inputs):
        raise RuntimeError("no compiler on this machine")

    _compiled_by(broken, monkeypatch)
    notes = _Notes()
    train([store], tmp_path / "one", SMALL.model_copy(update={"compile": True}), reporter=notes)
    train([store], tmp_path / "two", SMALL)
    assert any("generator is not compiled" in line for line in notes.lines)
    assert (tmp_path / "one" / LOSSES).read_text() == (tmp_path / "two" / LOSSES).read_text()
