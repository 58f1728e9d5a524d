from __future__ import annotations

import csv
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from isosr_models.checkpoint import CHECKPOINT
from isosr_models.model_folder import load_restorer, read_description
from isosr_pipeline.errors import (
    InputError,
    InterruptedRunError,
    OutputExistsError,
    ResumeError,
)
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.settings import RestoreSettings
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.settings import OTCycleGANSettings
from isosr_pipeline.training.stored_crops import prepare

CPU = torch.device("cpu")
SMALL = OTCycleGANSettings(width=4, crop=(32, 32, 32), planes=2, iterations=4, device="cpu")


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


@pytest.fixture
def crops(store):
    return Crops([store], Zyx(32, 32, 32), [[(100.0, 1100.0)]], seed=3)


def test_crops_are_parts_of_the_volume_with_the_window_at_0_and_1(store, crops):
    whole = Volume(store).arrays[0][0].astype(np.float32)
    normalised = (whole - 100) / 1000
    windows = np.lib.stride_tricks.sliding_window_view(normalised, (32, 32, 32))
    for index in range(5):
        crop = crops.read(index, CPU)[0].numpy()
        assert crop.dtype == np.float32
        flips = [np.flip(crop, [a for a in range(3) if bits >> a & 1]) for bits in range(8)]
        assert any((np.abs(windows - f).max(axis=(3, 4, 5)) < 1e-5).any() for f in flips)


def test_crops_are_the_same_whoever_reads_them(crops):
    again = Crops(crops.stores, crops.crop, crops.windows, crops.seed)
    loader = DataLoader(crops, sampler=[4, 2], num_workers=2, multiprocessing_context="spawn")
    for index, batch in zip([4, 2], loader, strict=True):
        assert torch.equal(prepare(batch, CPU)[0], again.read(index, CPU))
    other = Crops(crops.stores, crops.crop, crops.windows, seed=4)
    assert not torch.equal(other.read(0, CPU), crops.read(0, CPU))


@pytest.mark.parametrize("loaders", [0, 2])
def test_what_a_loader_finds_wrong_is_told_as_it_is(store, tmp_path, loaders):
    chunk = next(path for path in sorted((store / "0").rglob("*")) if path.stat().st_size > 1000)
    for path in chunk.parent.parent.parent.rglob("*"):
        if path.is_file() and "json" not in path.name:
            path.write_bytes(path.read_bytes()[:100] + b"\0" * 60)
    settings = SMALL.model_copy(update={"loaders": loaders, "sampling": "uniform"})
    with pytest.raises(InputError, match=r"^[^\n]*can't be read[^\n]*damaged[^\n]*$") as found:
        train([store], tmp_path / "model", settings)
    assert "Traceback" not in str(found.value)


def test_a_model_is_trained_and_described(store, tmp_path):
    train([store], tmp_path / "model", SMALL)
    restorer = load_restorer(tmp_path / "model")
    assert restorer(torch.rand(1, 1, 64, 64, 64), (slice(28, 36),) * 3).isfinite().all()
    description = read_description(tmp_path / "model")
    assert description.training["iterations"] == 4
    assert description.training["run"]["stores"][0]["id"] == Volume(store).require_own().id
    rows = list(csv.DictReader((tmp_path / "model" / LOSSES).read_text().splitlines()))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert set(rows[0]) == {"iteration", "adversarial", "cycle", "discrimination"}


def test_minutes_end_a_training_too(store, tmp_path):
    settings = SMALL.model_copy(update={"iterations": None, "minutes": 0.02})
    train([store], tmp_path / "model", settings)
    training = read_description(tmp_path / "model").training
    assert training["iterations"] >= 1
    assert training["seconds"] >= 1.2


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (signal.SIGINT, {}),
        (signal.SIGTERM, {}),
        (signal.SIGTERM, {"average": 0.9, "loaders": 2, "batch": 2}),
    ],
)
def test_interrupted_and_resumed_gives_the_same_weights(store, tmp_path, number, change):
    settings = SMALL.model_copy(update={"iterations": 12, **change})
    train([store], tmp_path / "straight", settings)

    def interrupt_after_a_step():
        table = tmp_path / "model" / LOSSES
        while not (table.exists() and len(table.read_text().splitlines()) > 2):
            time.sleep(0.01)
        signal.raise_signal(number)

    threading.Thread(target=interrupt_after_a_step, daemon=True).start()
    with pytest.raises(InterruptedRunError, match="--resume"):
        train([store], tmp_path / "model", settings)
    assert (tmp_path / "model" / CHECKPOINT).exists()
    with pytest.raises(OutputExistsError, match="unfinished training"):
        train([store], tmp_path / "model", settings)
    other = settings.model_copy(update={"learning_rate": 1.0})
    with pytest.raises(ResumeError, match=r"learning_rate was 0\.0001 and is 1\.0"):
        train([store], tmp_path / "model", other, if_exists="resume")

    train([store], tmp_path / "model", settings, if_exists="resume")
    expected = load_file(tmp_path / "straight" / "weights.safetensors")
    resumed = load_file(tmp_path / "model" / "weights.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in resumed.items())
    assert (tmp_path / "model" / LOSSES).read_text() == (tmp_path / "straight" / LOSSES).read_text()
    assert not (tmp_path / "model" / CHECKPOINT).exists()


def test_a_model_that_exists_is_kept(store, tmp_path):
    model = tmp_path / "model"
    train([store], model, SMALL)
    weights = (model / "weights.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="is a model already"):
        train([store], model, SMALL)
    train([store], model, SMALL, if_exists="resume")
    assert (model / "weights.safetensors").read_bytes() == weights
    train([store], model, SMALL.model_copy(update={"seed": 1}), if_exists="overwrite")
    assert (model / "weights.safetensors").read_bytes() != weights
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(OutputExistsError, match="not a model"):
        train([store], precious, SMALL, if_exists="overwrite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": None}, "has no end"),
        ({"crop": (32, 40, 30)}, "crop is 30 along x: .* multiple of 4 between 32 and 44"),
        ({"crop": (64, 32, 32)}, "crop is 64 along z"),
        ({"device": "cuda"}, "no CUDA GPU here"),
    ],
)
def test_bad_parameters_are_refused_before_work(store, tmp_path, change, message):
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU here")
    with pytest.raises(InputError, match=message):
        train([store], tmp_path / "model", SMALL.model_copy(update=change))
    assert not (tmp_path / "model").exists()


def test_a_volume_too_thin_to_train_on_is_named(make_store, tmp_path):
    store = make_store(np.zeros((20, 64, 64), np.uint16)).path
    with pytest.raises(InputError, match="axis z has 20 isotropic voxels"):
        train([store], tmp_path / "model", SMALL)


def test_several_stores_and_undersampled_z(make_store, tmp_path):
    rng = np.random.default_rng(0)
    stores = [
        make_store(rng.integers(0, 999, shape, dtype=np.uint16), voxel_size=size).path
        for shape, size in (((33, 40, 40), (1.0, 1.0, 1.0)), ((14, 40, 40), (2.5, 1.0, 1.0)))
    ]
    train(stores, tmp_path / "model", SMALL)
    assert len(read_description(tmp_path / "model").training["run"]["stores"]) == 2


def test_a_training_that_was_killed_at_once_is_gone_on_with(store, tmp_path, monkeypatch):
    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.steps.train.optimise", killed)
        with pytest.raises(KeyboardInterrupt):
            train([store], tmp_path / "model", SMALL)
    train([store], tmp_path / "model", SMALL, if_exists="resume")
    train([store], tmp_path / "straight", SMALL)
    expected = load_file(tmp_path / "straight" / "weights.safetensors")
    resumed = load_file(tmp_path / "model" / "weights.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in resumed.items())


def test_an_explicit_window_stays_with_the_model(store, tmp_path, make_store, cluster):
    train([store], tmp_path / "model", SMALL.model_copy(update={"window": (50.0, 900.0)}))
    assert read_description(tmp_path / "model").window == (50.0, 900.0)
    chosen = RestoreSettings(chunk=16, shard=32)
    restore(store, str(tmp_path / "model"), tmp_path / "out.zarr", chosen, cluster)
    step = Volume(tmp_path / "out.zarr").require_own().history[-1]
    assert step.parameters["windows"] == [[50.0, 900.0]]


def test_a_model_does_not_go_into_its_store(store):
    with pytest.raises(InputError, match="the output"):
        train([store], store / "model", SMALL)


def test_an_interrupted_training_may_be_given_another_end(store, tmp_path, monkeypatch):
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.steps.train.optimise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train([store], tmp_path / "model", SMALL)
    longer = SMALL.model_copy(update={"iterations": 6, "threads": 1})
    train([store], tmp_path / "model", longer, if_exists="resume")
    training = read_description(tmp_path / "model").training
    assert training["iterations"] == training["run"]["iterations"] == 6
    with pytest.raises(ResumeError, match="iterations was 6 and is 4"):
        train([store], tmp_path / "model", SMALL, if_exists="resume")
