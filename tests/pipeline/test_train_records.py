from __future__ import annotations

import re

import imagecodecs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isosr_models.checkpoint import Progress
from isosr_models.model_folder import WEIGHTS
from isosr_models.unet import UNet3d
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.steps.train import train
from isosr_pipeline.training import loop as training
from isosr_pipeline.training import previews
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.previews import PREVIEWS, Previews, find_previews
from isosr_pipeline.training.recording import TENSORBOARD
from isosr_pipeline.training.settings import OTCycleGANSettings

SMALL = OTCycleGANSettings(width=4, crop=(32, 36, 40), planes=2, iterations=5, device="cpu")


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


def test_pictures_show_the_same_crops_before_and_after(store, tmp_path):
    crops = Crops([store], Zyx(32, 36, 40), [[(0.0, 1500.0)]], seed=3)
    network = UNet3d(4, residual=True)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(5)
    picture = Previews(tmp_path, crops).draw(network, 7)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert np.array_equal(
        imagecodecs.png_decode((tmp_path / PREVIEWS / "000007.png").read_bytes()), picture
    )
    # XY is 36 x 40, XZ 32 x 40, YZ 36 x 32; gaps of 4; an identity gives back what it gets.
    assert picture.shape == (4 * 36 + 3 * 4, 40 + 40 + 32 + 2 * 4)
    assert np.array_equal(picture[:36], picture[40:76])
    crop = crops.of_stream(2).read(0, torch.device("cpu"))[0].numpy()
    assert np.array_equal(picture[:36, :40], np.rint(255 * crop[16].clip(0, 1)))
    assert np.array_equal(picture[:32, 44:84], np.rint(255 * crop[:, 18].clip(0, 1)))
    assert np.array_equal(picture[:36, 88:], np.rint(255 * crop[:, :, 20].T.clip(0, 1)))
    assert picture.std() > 10


def test_training_is_the_same_with_pictures_and_without(store, tmp_path):
    change = {"preview_every": 2, "tensorboard": True}
    train([store], tmp_path / "seen", SMALL.model_copy(update=change))
    train([store], tmp_path / "unseen", SMALL.model_copy(update={"preview_every": 0}))
    seen, unseen = (load_file(tmp_path / name / WEIGHTS) for name in ("seen", "unseen"))
    assert all(torch.equal(value, unseen[key]) for key, value in seen.items())
    assert [path.name for path in find_previews(tmp_path / "seen")] == [
        "000001.png",
        "000002.png",
        "000004.png",
    ]
    assert not (tmp_path / "unseen" / PREVIEWS).exists()
    events = EventAccumulator(str(tmp_path / "seen" / TENSORBOARD))
    events.Reload()
    assert [event.step for event in events.Scalars("losses/cycle")] == [1, 2, 3, 4, 5]
    assert [event.step for event in events.Images("crops")] == [1, 2, 4]


def test_pictures_show_what_the_restorer_will_do(store, tmp_path, monkeypatch):
    """With the statistics of each crop at first, and with those that have been frozen then."""
    shown = {}
    draw = Previews.draw

    def noted(self, network, iteration, statistics):
        picture = draw(self, network, iteration, statistics)
        crop = self._crops[0]
        restored = network.folded()(crop)[0, 0].clamp(0, 1)
        middle = np.rint(255 * restored[16].numpy())
        shown[iteration] = np.abs(picture[40:76, :40] - middle).max()
        return picture

    monkeypatch.setattr(Previews, "draw", noted)
    change = {"freeze_norm": 0.5, "preview_every": 1, "learning_rate": 1e-2}
    train([store], tmp_path / "model", SMALL.model_copy(update=change))
    assert [shown[iteration] <= 1 for iteration in range(1, 6)] == [False] * 3 + [True] * 2


def test_the_first_picture_and_the_last_are_kept(store, tmp_path, monkeypatch):
    monkeypatch.setattr(previews, "MOST", 3)
    crops = Crops([store], Zyx(32, 32, 32), [[(0.0, 1500.0)]], seed=3)
    drawing = Previews(tmp_path, crops)
    for iteration in range(1, 7):
        drawing.draw(UNet3d(4), iteration)
    assert [path.stem for path in find_previews(tmp_path)] == ["000001", "000005", "000006"]


def test_overwriting_removes_the_pictures_of_the_earlier_training(store, tmp_path):
    change = {"preview_every": 1, "tensorboard": True}
    train([store], tmp_path / "model", SMALL.model_copy(update=change))
    quiet = SMALL.model_copy(update={"preview_every": 0})
    train([store], tmp_path / "model", quiet, if_exists="overwrite")
    assert not find_previews(tmp_path / "model")
    assert not list((tmp_path / "model" / TENSORBOARD).iterdir())


@pytest.mark.parametrize(
    ("seconds", "minutes", "remark"),
    [(30.0, 60.0, r"it/s$"), (30.0, 1.0, r"it/s, ends in 0\.5 min$"), (30.0, None, r"it/s$")],
)
def test_where_time_ends_before_the_iterations_do_it_is_shown(
    monkeypatch, seconds, minutes, remark
):
    now = 100.0
    monkeypatch.setattr(training.time, "monotonic", lambda: now)
    settings = SMALL.model_copy(update={"iterations": 1000, "minutes": minutes})
    clock = training._Clock(settings, Progress(iterations=0, seconds=0.0, run={}))
    now += seconds
    for _ in range(100):
        clock.count()
    assert re.search(remark, clock.remark)
