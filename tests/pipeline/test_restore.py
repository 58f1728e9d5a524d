from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_cluster.clients import open_client
from isosr_models.errors import ModelFormatError
from isosr_models.layers import use_statistics
from isosr_models.model_folder import save_model
from isosr_models.restorers import IdentityRestorer, NetworkRestorer
from isosr_models.unet import UNet3d
from isosr_pipeline.errors import InputError, OutputExistsError, ResumeError, WorkFailedError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.restoring.fitting import choose_block
from isosr_pipeline.restoring.regions import to_dtype
from isosr_pipeline.settings import RestoreSettings
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.store.volume import Volume

SMALL = {"chunk": (16, 16, 16), "shard": (32, 32, 32)}


@pytest.fixture(scope="module", params=[1, 2])
def workers(request, client):
    """A cluster of one worker, and one of several."""
    if request.param == 2:
        yield lambda: nullcontext(client)
        return
    with open_client(workers=1) as single:
        yield lambda: nullcontext(single)


@settings(max_examples=12)
@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    block=st.tuples(*[st.integers(1, 40)] * 3),
    channels=st.integers(1, 2),
)
def test_identity_gives_back_the_input_bit_for_bit(
    workers, make_store, tmp_path, shape, dtype, block, channels
):
    rng = np.random.default_rng(5)
    voxels = rng.integers(-100 if dtype == "int16" else 0, 256, (channels, *shape)).astype(dtype)
    if dtype == "float32":
        voxels *= np.float32(0.1)
    volume = make_store(voxels)
    out = tmp_path / "out.zarr"
    chosen = RestoreSettings(**SMALL, block=block)
    restore(volume.path, "identity", out, chosen, workers, if_exists="overwrite")
    restored = Volume(out)
    restored.require_complete()
    assert restored.dtype == volume.dtype
    assert restored.voxel_size == volume.voxel_size
    for channel in range(channels):
        assert (restored.read(channel, Box.whole(shape)) == voxels[channel]).all()


@pytest.fixture(scope="module", params=[False, True], ids=["sigmoid", "residual"])
def network(request):
    """A U-Net with random weights and random running statistics."""
    torch.manual_seed(11)
    unet = UNet3d(4, residual=request.param)
    for module in unet.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
    if request.param:
        torch.nn.init.normal_(unet.head[0].weight, std=0.2)
    return unet


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(
        folder,
        {"generator": network},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    return folder


def _at_once(network, voxels, margin=28):
    """Apply the network to the whole volume, reflect-padded by hand."""
    stride = network.stride
    widths = [(margin, margin + -(n + 2 * margin) % stride) for n in voxels.shape]
    padded = torch.from_numpy(np.pad(voxels, widths, mode="reflect"))[None, None]
    use_statistics(network, "frozen")
    with torch.no_grad():
        out = network(padded)[0, 0].numpy()
    return out[tuple(slice(margin, margin + n) for n in voxels.shape)]


@pytest.mark.parametrize("block", [(16, 16, 16), (13, 30, 21), (32, 32, 32)])
def test_blocks_equal_the_whole_volume_at_once(
    cluster, make_store, tmp_path, network, model, block
):
    voxels = np.random.default_rng(2).random((41, 50, 35), np.float32)
    out = tmp_path / "out.zarr"
    chosen = RestoreSettings(**SMALL, block=block, window=(0.0, 1.0), precision="32")
    restore(make_store(voxels).path, str(model), out, chosen, cluster)
    restored = Volume(out).read(0, Box.whole(voxels.shape))
    assert np.abs(restored - _at_once(network, voxels)).max() < 1e-5


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_regions_of_another_size_change_nothing(cluster, make_store, tmp_path, model, precision):
    voxels = np.random.default_rng(2).random((41, 50, 35), np.float32)
    volume = make_store(voxels, voxel_size=(1.7, 1.0, 1.0))
    results = []
    for name, shard in (("a", (16, 16, 16)), ("b", (48, 64, 32))):
        cut = {"chunk": (16, 16, 16), "shard": shard}
        chosen = RestoreSettings(**cut, window=(0.0, 1.0), precision=precision)
        restore(volume.path, str(model), tmp_path / name, chosen, cluster)
        results.append(Volume(tmp_path / name))
    first, second = (v.read(0, Box.whole(v.shape[1:])) for v in results)
    assert results[0].voxel_size == (1.0, 1.0, 1.0)
    assert first.shape == IsotropicView(volume).shape
    assert np.abs(first - second).max() < 1e-5


def test_saturated_and_clipped_voxels_are_reported(cluster, make_store, tmp_path, network, model):
    voxels = np.random.default_rng(2).integers(0, 65536, (20, 20, 20), dtype=np.uint16)
    out = tmp_path / "out.zarr"
    chosen = RestoreSettings(**SMALL, window=(10_000.0, 60_000.0))
    restore(make_store(voxels).path, str(model), out, chosen, cluster)
    figures = Volume(out).require_own().history[-1].figures
    outside = int(((voxels < 10_000) | (voxels > 60_000)).sum())
    assert figures["saturated"] == (0 if network.residual else outside)
    assert (figures["clipped"] > 0) == network.residual


def test_rounding_and_clipping():
    values, beyond = to_dtype(np.array([-3.2, 0.6, 254.4, 300.0], np.float32), np.dtype("uint8"))
    assert values.tolist() == [0, 1, 254, 255]
    assert beyond == 2


def test_provenance_and_windows_travel_with_the_result(cluster, make_store, tmp_path, model):
    voxels = np.random.default_rng(2).integers(0, 900, (20, 20, 20), dtype=np.uint16)
    volume = make_store(voxels)
    restore(volume.path, str(model), tmp_path / "out.zarr", RestoreSettings(**SMALL), cluster)
    restored = Volume(tmp_path / "out.zarr")
    own = restored.require_own()
    values = restored.read(0, Box.whole(restored.shape[1:]))
    assert restored.window(0, (3.0, 97.0)).high == pytest.approx(np.percentile(values, 97))
    step = own.history[-1]
    window = volume.window(0, (0.03, 99.97))
    assert step.parameters["method"] == "ot-cyclegan"
    assert step.parameters["source_id"] == volume.require_own().id
    assert step.parameters["windows"] == [[window.low, window.high]]
    assert set(step.versions) == {"isosr-pipeline", "numpy", "tensorstore", "torch", "zarr"}


def test_what_does_not_fit_is_refused_before_anything_is_written(
    cluster, make_store, tmp_path, model, noise
):
    path, out = make_store(noise).path, tmp_path / "out.zarr"
    with pytest.raises(InputError, match=r"receptive field .* reaches 26"):
        restore(path, str(model), out, RestoreSettings(halo=8), cluster)
    with pytest.raises(ModelFormatError, match=r"has no model\.json"):
        restore(path, str(tmp_path), out, RestoreSettings(), cluster)
    with pytest.raises(InputError, match="a shard of 40"):
        restore(path, str(model), out, RestoreSettings(chunk=16, shard=40), cluster)
    assert not out.exists()


def test_resume_needs_the_same_model(cluster, make_store, tmp_path, model, noise):
    path, out = make_store(noise).path, tmp_path / "out.zarr"
    chosen = RestoreSettings(**SMALL)
    restore(path, "identity", out, chosen, cluster)
    with pytest.raises(OutputExistsError):
        restore(path, "identity", out, chosen, cluster)
    restore(path, "identity", out, chosen, cluster, if_exists="resume")
    with pytest.raises(ResumeError, match=r"parameters\.method was 'identity'"):
        restore(path, str(model), out, chosen, cluster, if_exists="resume")


def test_blocks_fit_the_memory_and_divide_regions_evenly():
    restorer = NetworkRestorer(UNet3d(64), "frozen", torch.device("cpu"))
    shard = Zyx(512, 256, 256)
    assert choose_block(shard, restorer, 26, 60e9) == (512, 256, 256)
    assert choose_block(shard, restorer, 26, 20e9) == (256, 256, 256)
    block = choose_block(shard, restorer, 26, 4e9)
    assert block == (171, 128, 128)
    read = tuple(n + 56 for n in block)
    assert restorer.memory(block, read) <= 4e9
    with pytest.raises(InputError, match="fewer --workers"):
        choose_block(shard, restorer, 26, 1e9)
    assert choose_block(shard, IdentityRestorer(), 0, 2**33) == shard


def test_an_unfinished_input_is_refused(cluster, make_store, tmp_path, noise):
    volume = Volume(make_store(noise).path, writable=True)
    volume.update(volume.require_own().model_copy(update={"complete": False}))
    with pytest.raises(InputError, match="not complete"):
        restore(volume.path, "identity", tmp_path / "out.zarr", RestoreSettings(), cluster)


def test_an_input_that_has_lost_a_file_is_refused(cluster, make_store, tmp_path, noise):
    first, second = tmp_path / "first.zarr", tmp_path / "second.zarr"
    path, settings = make_store(noise).path, RestoreSettings(**SMALL)
    restore(path, "identity", first, settings, cluster)
    lost = next(file for file in (first / "0").rglob("*") if file.name.isdigit() and file.is_file())
    lost.rename(tmp_path / "lost")
    with pytest.raises(InputError, match=r"level 0 has \d+ files, and had \d+ when it was compl"):
        restore(first, "identity", second, settings, cluster)
    assert not second.exists()
    (tmp_path / "lost").rename(lost)
    restore(first, "identity", second, settings, cluster)


def test_nothing_is_written_over_what_is_read(cluster, make_store, tmp_path, model, noise):
    path = make_store(noise).path
    for out in (path, path / "out.zarr", model / "out.zarr"):
        with pytest.raises(InputError, match="the output"):
            restore(path, str(model), out, RestoreSettings(), cluster, if_exists="overwrite")
    assert (Volume(path).read(0, Box.whole(noise.shape)) == noise).all()


def test_nan_from_the_network_is_named_and_not_written(
    cluster, make_store, tmp_path, network, noise
):
    spoiled = copy.deepcopy(network)
    spoiled.encoder1[0][1].running_var.fill_(-1)
    save_model(
        tmp_path / "model",
        {"generator": spoiled},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    out = tmp_path / "out.zarr"
    with pytest.raises(WorkFailedError, match="the model made NaN or infinities of block"):
        restore(
            make_store(noise).path, str(tmp_path / "model"), out, RestoreSettings(**SMALL), cluster
        )
    with pytest.raises(InputError, match="not complete"):
        Volume(out).require_complete()


def test_a_restoration_that_failed_in_part_is_resumed(cluster, make_store, tmp_path, noise):
    volume = make_store(noise)
    shard = volume.path / "0" / "c" / "0" / "1" / "0" / "0"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    out, chosen = tmp_path / "out.zarr", RestoreSettings(**SMALL)
    with pytest.raises(WorkFailedError, match=r"restore: 1 of 8 regions failed"):
        restore(volume.path, "identity", out, chosen, cluster)
    shard.write_bytes(content)
    restore(volume.path, "identity", out, chosen, cluster, if_exists="resume")
    assert (Volume(out).read(0, Box.whole(noise.shape)) == noise).all()
