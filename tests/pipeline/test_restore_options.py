from __future__ import annotations

import copy
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from isosr_models.layers import use_statistics
from isosr_models.model_folder import read_description, save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.errors import HopelessError, InputError, ResumeError, WorkFailedError
from isosr_pipeline.geometry import Box, Region, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.restoring import regions
from isosr_pipeline.restoring.regions import RestoreRegion
from isosr_pipeline.restoring.schemes import ExactScheme
from isosr_pipeline.settings import EvaluateSettings, RestoreSettings
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume

SMALL = {"chunk": (16, 16, 16), "shard": (32, 32, 32), "window": (0.0, 1.0), "precision": "32"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(11)
    unet = UNet3d(2, residual=True)
    for module in unet.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
    torch.nn.init.normal_(unet.head[0].weight, std=0.2)
    return unet


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    parameters = {"method": "ot-cyclegan", "window_percentiles": (0.03, 99.97), "training": {}}
    save_model(folder, {"generator": network}, **parameters)
    return str(folder)


def _voxels(out, channel=0):
    volume = Volume(out)
    return volume.read(channel, Box.whole(volume.shape[1:]))


def _figures(out):
    return Volume(out).require_own().history[-1].figures


def test_a_part_of_a_channel_is_that_part_of_the_whole(cluster, make_store, tmp_path, model):
    voxels = np.random.default_rng(2).random((2, 30, 50, 45), np.float32)
    volume = make_store(voxels, voxel_size=(1.7, 1.0, 1.0))
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    restore(volume.path, model, whole, RestoreSettings(**SMALL), cluster)
    chosen = RestoreSettings(**SMALL, roi="5:44,3:50,:30", channel="1")
    restore(volume.path, model, part, chosen, cluster)
    expected = _voxels(whole, 1)[5:44, 3:50, :30]
    assert np.abs(_voxels(part) - expected).max() < 1e-5
    assert np.abs(expected - _voxels(whole, 0)[5:44, 3:50, :30]).max() > 0.1
    made = Volume(part)
    assert made.channels == ["channel 1"]
    assert made.origin == (5.0, 3.0, 0.0)

    figures = evaluate(volume.path, part, EvaluateSettings(), cluster)
    own = IsotropicView(volume).read(1, Box(Zyx(5, 3, 0), Zyx(44, 50, 30)))
    alone = make_store(own)
    expected = evaluate(alone.path, alone.path, EvaluateSettings(), cluster)
    found, other = (f.before.extremes for f in (figures, expected))
    assert figures.before.model_copy(update={"extremes": other}) == expected.before
    # Intensities were recorded in measured planes: resampled ones are means of two.
    assert found.low < other.low < other.high < found.high
    assert found.voxels < other.voxels
    with pytest.raises(InputError, match="has 1 channels, and channel 1"):
        evaluate(volume.path, part, EvaluateSettings(channel=1), cluster)


@pytest.mark.parametrize("channel", ["2", "0,0"])
def test_channels_that_are_not_there_are_refused(cluster, make_store, tmp_path, noise, channel):
    store = make_store(noise).path
    chosen = RestoreSettings(channel=channel)
    with pytest.raises(InputError, match=r"channel .* (was asked for|each once)"):
        restore(store, "identity", tmp_path / "out.zarr", chosen, cluster)
    assert not (tmp_path / "out.zarr").exists()


def test_where_nothing_is_the_volume_is_only_resampled(cluster, make_store, tmp_path, model):
    voxels = np.full((70, 140, 70), 0.125, np.float32)
    bright = Box(Zyx(0, 80, 0), Zyx(70, 140, 70))
    voxels[bright.slices] = np.random.default_rng(2).random(bright.shape, np.float32)
    store = make_store(voxels).path
    skipping = {**SMALL, "skip_empty": True, "floor": 0.125}
    results = []
    for name, block in (("a", 32), ("b", 20)):
        out = tmp_path / name
        restore(store, model, out, RestoreSettings(**skipping, block=block), cluster)
        results.append(_voxels(out))
    restore(store, model, tmp_path / "all", RestoreSettings(**SMALL), cluster)
    everywhere = _voxels(tmp_path / "all")
    # Cells are 64 voxels wide: the first of two along y shows nothing.
    assert np.abs(results[0] - results[1]).max() < 1e-5
    assert (results[0][:, :64] == 0.125).all()
    assert np.abs(everywhere[:, :64] - 0.125).max() > 0.01
    assert np.abs(results[0][:, 64:] - everywhere[:, 64:]).max() < 1e-5
    assert _figures(tmp_path / "a")["passed"] == 70 * 64 * 70
    assert _figures(tmp_path / "all")["passed"] == 0


def test_what_averages_hide_is_not_taken_for_empty(cluster, make_store, tmp_path, model):
    voxels = np.full((70, 140, 70), 0.25, np.float32)
    voxels[30, :, 40] = 0.3  # along y: a neurite one voxel thin
    store, out = make_store(voxels).path, tmp_path / "out.zarr"
    coarsest = Volume(store).arrays[-1]
    assert np.asarray(coarsest[0]).max() < 0.28
    restore(store, model, out, RestoreSettings(**SMALL, skip_empty=True, floor=0.28), cluster)
    # Only the cells beside those that it runs through, which are cut off by the border.
    assert _figures(out)["passed"] == (70 * 70 - 64 * 64) * 140


def test_each_channel_has_its_own_window_and_floor(cluster, make_store, tmp_path, model):
    rng = np.random.default_rng(2)
    one = rng.integers(0, 100, (40, 40, 40)).astype(np.uint16)
    store = make_store(np.stack([one, 20 * one])).path
    cut = {"chunk": 16, "shard": 32, "precision": "32"}
    restore(store, model, tmp_path / "out.zarr", RestoreSettings(**cut), cluster)
    first, second = (_voxels(tmp_path / "out.zarr", channel).astype(int) for channel in (0, 1))
    assert np.abs(second - 20 * first).max() <= 20
    assert np.abs(first - one).max() > 3
    chosen = RestoreSettings(**cut, skip_empty=True, floor=200)
    restore(store, model, tmp_path / "skipping", chosen, cluster)
    assert (_voxels(tmp_path / "skipping", 0) == one).all()
    assert _figures(tmp_path / "skipping")["passed"] == one.size
    assert np.abs(_voxels(tmp_path / "skipping", 1).astype(int) - second).max() <= 1


def test_an_empty_region_never_meets_the_network(make_store, tmp_path, model, monkeypatch):
    store = make_store(np.full((40, 40, 40), 3, np.uint16)).path
    job = _job(store, tmp_path / "out.zarr", model, floors=[3.0])
    monkeypatch.setattr(regions, "load", lambda *_: _Small(0))
    assert job(Region(0, 0, Box.whole((40, 40, 40))))["passed"] == 40**3


def _by_the_publication(network, voxels):
    """Restore as published, written down anew: everything in memory, sums and counts."""
    count, total = np.zeros(voxels.shape), np.zeros(voxels.shape)
    padded = np.pad(voxels, [(20, 300)] * 3, mode="reflect")
    use_statistics(network, "block")
    for z in range(0, max(1, voxels.shape[0] - 30), 90):
        block = padded[z : z + 160, :160, :160]
        with torch.no_grad():
            restored = network(torch.from_numpy(block)[None, None])[0, 0].numpy()
        core = restored[20:140, 20:140, 20:140]
        place = tuple(slice(a, a + 120) for a in (z, 0, 0))
        room = total[place].shape
        total[place] += core[tuple(slice(0, n) for n in room)]
        count[place] += 1
    return total / count


def test_the_publications_scheme_is_reproduced(cluster, make_store, tmp_path, network, model):
    voxels = np.random.default_rng(2).random((151, 30, 25), np.float32)
    store, out = make_store(voxels).path, tmp_path / "out.zarr"
    chosen = RestoreSettings(**{**SMALL, "shard": (96, 32, 32)}, scheme="paper")
    restore(store, model, out, chosen, cluster)
    assert np.abs(_voxels(out) - _by_the_publication(network, voxels)).max() < 1e-5
    step = Volume(out).require_own().history[-1]
    assert step.parameters["scheme"] == "paper"
    assert step.figures["seams"]["z"]["cubes"] > 0
    with pytest.raises(ResumeError, match=r"parameters\.scheme was 'paper'"):
        restore(store, model, out, RestoreSettings(**SMALL), cluster, if_exists="resume")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"scheme": "paper", "block": 64}, "block can't be chosen"),
        ({"scheme": "paper", "halo": 30, "skip_empty": True}, "halo and skip_empty can't"),
        ({"floor": 2.0}, "ask for skip_empty too"),
        ({"halo": 8}, "receptive field of the model reaches 26"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(
    cluster, make_store, tmp_path, model, noise, options, rule
):
    out = tmp_path / "out.zarr"
    with pytest.raises(InputError, match=rule):
        restore(make_store(noise).path, model, out, RestoreSettings(**options), cluster)
    assert not out.exists()


def test_the_identity_has_nothing_to_skip(cluster, make_store, tmp_path, noise):
    chosen, out = RestoreSettings(skip_empty=True), tmp_path / "out.zarr"
    with pytest.raises(InputError, match="identity only resamples"):
        restore(make_store(noise).path, "identity", out, chosen, cluster)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named_and_not_written(cluster, make_store, tmp_path, model, value):
    voxels = np.random.default_rng(2).random((40, 40, 40), np.float32)
    voxels[3, 4, 5] = value
    store, out = make_store(voxels).path, tmp_path / "out.zarr"
    for name in (model, "identity"):
        chosen = RestoreSettings(**SMALL)
        with pytest.raises(
            WorkFailedError, match=r"store1\.zarr: channel 0 has -?(nan|inf) at z 3, y 4, x 5"
        ):
            restore(store, name, out, chosen, cluster, if_exists="overwrite")


def test_a_store_of_another_program_is_known_by_its_metadata(cluster, make_store, tmp_path, noise):
    store, out = make_store(noise).path, tmp_path / "out.zarr"
    root = zarr.open_group(store, mode="r+")
    del root.attrs["isosr"]
    restore(store, "identity", out, RestoreSettings(), cluster)
    restore(store, "identity", out, RestoreSettings(), cluster, if_exists="resume")
    root["0"].attrs["made"] = "anew"
    with pytest.raises(ResumeError, match=r"parameters\.source_id was"):
        restore(store, "identity", out, RestoreSettings(), cluster, if_exists="resume")


def test_a_volume_or_model_that_is_replaced_ends_the_run(make_store, tmp_path, network, model):
    voxels = np.random.default_rng(2).random((40, 40, 40), np.float32)
    store, own = make_store(voxels).path, tmp_path / "model"
    shutil.copytree(model, own)
    region = Region(0, 0, Box.whole(voxels.shape))
    job = _job(store, tmp_path / "a.zarr", str(own), halo=26)
    job(region)
    shutil.rmtree(store)
    shutil.move(make_store(voxels).path, store)
    with pytest.raises(HopelessError, match=r"store1\.zarr is not what it was"):
        job(region)
    fresh = _job(store, tmp_path / "b.zarr", str(own), halo=26)
    shutil.rmtree(own)
    other = copy.deepcopy(network)
    torch.nn.init.normal_(other.head[0].weight, std=0.3)
    save_model(own, {"generator": other}, method="x", window_percentiles=(3, 97), training={})
    with pytest.raises(HopelessError, match="model is not what it was"):
        fresh(region)


@pytest.mark.parametrize("begun", ["32", "bf16"])
def test_a_restoration_keeps_the_precision_that_it_was_begun_in(
    isosr, make_store, tmp_path, model, noise, begun, monkeypatch
):
    store, out = make_store(noise).path, tmp_path / "out.zarr"
    cut = ["--chunk", 16, "--shard", 32, "--device", "cpu"]
    assert isosr("restore", store, model, out, *cut, "--precision", begun) == 0
    volume = Volume(out, writable=True)
    volume.update(volume.require_own().model_copy(update={"complete": False}))
    assert isosr("restore", store, model, out, *cut, "--resume") == 0
    assert Volume(out).require_own().history[-1].parameters["precision"] == begun
    other = {"32": "bf16", "bf16": "32"}[begun]
    assert isosr("restore", store, model, out, *cut, "--resume", "--precision", other) == 2


def test_a_moved_volume_is_the_same(cluster, make_store, tmp_path, noise):
    store, out = make_store(noise).path, tmp_path / "out.zarr"
    restore(store, "identity", out, RestoreSettings(), cluster)
    moved = store.rename(tmp_path / "moved.zarr")
    restore(moved, "identity", out, RestoreSettings(), cluster, if_exists="resume")


def test_saturated_voxels_count_once_however_blocks_overlap(cluster, make_store, tmp_path, network):
    published = UNet3d(2)
    folder = tmp_path / "model"
    save_model(
        folder, {"generator": published}, method="x", window_percentiles=(3, 97), training={}
    )
    voxels = np.random.default_rng(2).random((130, 20, 20), np.float32)
    outside = int(((voxels < 0.25) | (voxels > 0.75)).sum())
    store = make_store(voxels).path
    for name, more in (("a", {}), ("b", {"scheme": "paper"}), ("c", {"skip_empty": True})):
        chosen = RestoreSettings(**{**SMALL, "window": (0.25, 0.75)}, **more)
        restore(store, str(folder), tmp_path / name, chosen, cluster)
        assert _figures(tmp_path / name)["saturated"] == outside


class _Small:
    """Restores blocks of at most so many voxels; larger ones do not fit its memory."""

    halo, stride, normalised, saturates = 2, 4, True, False
    device = torch.device("cpu")

    def __init__(self, most):
        self.most = most
        self.tried = []

    def __call__(self, block, keep):
        self.tried.append(block.numel())
        if block.numel() > self.most:
            torch.empty(2**60)  # as the system says it
        return block[:, :, *keep] * 2


def _job(store, out, model, floors=None, halo=2):
    volume = Volume(store)
    shape = (1, *volume.shape[1:])
    spec = VolumeSpec(
        shape=shape,
        dtype=volume.dtype,
        voxel_size=(1.0, 1.0, 1.0),
        chunk=Zyx(16, 16, 16),
        shard=Zyx(*(-(-n // 16) * 16 for n in shape[1:])),
        channels=("a",),
    )
    create_volume(out, spec, StoreAttributes())
    scheme = ExactScheme(Zyx(128, 128, 128), halo, 4)
    window = [(0.0, 1.0)]
    source, weights = volume.identity, read_description(Path(model)).weights_sha256
    place = Zyx(0, 0, 0)
    return RestoreRegion(
        store, out, model, scheme, window, [0], place, floors, "cpu", "32", source, weights
    )


def test_a_block_that_does_not_fit_is_halved_and_those_after_it_too(
    make_store, tmp_path, model, monkeypatch
):
    voxels = np.random.default_rng(2).random((200, 100, 100), np.float32)
    out = tmp_path / "out.zarr"
    job, small = _job(make_store(voxels).path, out, model), _Small(500_000)
    monkeypatch.setattr(regions, "load", lambda *_: small)
    job(Region(0, 0, Box.whole(voxels.shape)))
    assert np.abs(_voxels(out) - 2 * voxels).max() < 1e-5
    failed = [n for n in small.tried if n > small.most]
    # The size that failed is not tried again.
    assert len(failed) == len(set(failed)) <= 2


def test_where_no_block_fits_the_run_is_hopeless(make_store, tmp_path, model, monkeypatch):
    voxels = np.random.default_rng(2).random((60, 60, 60), np.float32)
    job = _job(make_store(voxels).path, tmp_path / "out.zarr", model)
    monkeypatch.setattr(regions, "load", lambda *_: _Small(100))
    with pytest.raises(HopelessError, match="not even a block of"):
        job(Region(0, 0, Box.whole(voxels.shape)))


def test_seams_and_precision_are_recorded(isosr, make_store, tmp_path, model, capsys):
    voxels = np.random.default_rng(2).integers(0, 60000, (70, 70, 70), dtype=np.uint16)
    out = tmp_path / "out.zarr"
    cut = ["--chunk", 16, "--shard", 32, "--precision", "bf16", "--device", "cpu"]
    assert isosr("restore", make_store(voxels).path, model, out, *cut) == 0
    shown = capsys.readouterr().err
    assert "seams: none to be seen; along " in shown
    figures = _figures(out)
    assert Volume(out).require_own().history[-1].parameters["precision"] == "bf16"
    seam = figures["seams"]["z"]["excess"]
    assert abs(seam["value"]) < 4 * seam["error"] + 0.01
    assert json.loads((out / "zarr.json").read_text())["attributes"]["isosr"]["complete"]


@pytest.mark.parametrize("size", [1.7, 3.0, 0.6])
def test_planes_are_those_of_the_whole_volume_resampled_first(cluster, make_store, tmp_path, size):
    voxels = np.random.default_rng(2).random((23, 40, 35), np.float32)
    out = tmp_path / "out.zarr"
    store = make_store(voxels, voxel_size=(size, 1.0, 1.0)).path
    cut = {**SMALL, "shard": (16, 32, 32), "block": (7, 40, 40)}
    restore(store, "identity", out, RestoreSettings(**cut), cluster)
    position = np.arange(int(22 * size + 1e-3) + 1) / size
    below = np.minimum(position.astype(int), 21)
    share = (position - below)[:, None, None]
    expected = voxels[below] * (1 - share) + voxels[below + 1] * share
    assert Volume(out).shape[1:] == expected.shape
    assert np.abs(_voxels(out) - expected).max() < 1e-5


def test_seams_are_compared_with_the_same_part_of_the_same_channel(cluster, make_store, tmp_path):
    voxels = np.random.default_rng(2).random((2, 80, 150, 150), np.float32)
    store = make_store(voxels).path
    chosen = RestoreSettings(**SMALL, roi="2:80,5:150,7:150", channel="1")
    restore(store, "identity", tmp_path / "out.zarr", chosen, cluster)
    seams = _figures(tmp_path / "out.zarr")["seams"]
    for axis in "zyx":
        assert seams[axis]["cubes"] > 1
        assert seams[axis]["excess"] == {"value": 0.0, "error": 0.0}


def test_one_region_is_read_while_another_is_computed(make_store, tmp_path, model, monkeypatch):
    voxels = np.random.default_rng(2).random((64, 32, 32), np.float32)
    job = _job(make_store(voxels).path, tmp_path / "out.zarr", model)
    both_read, at_the_device, most, loaded = threading.Event(), [], [], []
    read = LevelReader.read
    reads = []

    def counting(self, *place):
        reads.append(place)
        if len(reads) == 2:
            both_read.set()
        return read(self, *place)

    class Waiting(_Small):
        def __call__(self, block, keep):
            at_the_device.append(block)
            most.append(len(at_the_device))
            assert both_read.wait(60), "the second region is not read before the first is done"
            at_the_device.pop()
            return super().__call__(block, keep)

    monkeypatch.setattr(LevelReader, "read", counting)
    monkeypatch.setattr(regions, "load", lambda *_: loaded.append(1) or Waiting(10**9))
    monkeypatch.setattr(regions, "RegionWriter", _Counting)
    boxes = [Box(Zyx(a, 0, 0), Zyx(a + 32, 32, 32)) for a in (0, 32)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(job, [Region(i, 0, box) for i, box in enumerate(boxes)]))
    assert most == [1, 1]
    assert loaded == [1]


class _Counting:
    """Takes what is made of a region, and writes nothing."""

    def __init__(self, *_):
        pass

    def add(self, *_):
        pass

    def finish(self):
        return {}
