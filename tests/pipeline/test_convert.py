from __future__ import annotations

import filecmp

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.engine.ledger import FILE, Ledger
from isosr_pipeline.errors import (
    BusyError,
    InputError,
    OutputExistsError,
    ResumeError,
    WorkFailedError,
)
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.store.pyramid import downsample
from isosr_pipeline.store.volume import Volume

SMALL = ConvertSettings(voxel_size=(2.0, 1.0, 1.0), chunk=(16, 16, 16), shard=(32, 32, 32))


def same_files(first, second):
    """Tell whether two stores hold the same data files, byte by byte."""
    names = sorted(p.relative_to(first) for p in first.rglob("c/**/*") if p.is_file())
    assert names == sorted(p.relative_to(second) for p in second.rglob("c/**/*") if p.is_file())
    return all(filecmp.cmp(first / name, second / name, shallow=False) for name in names)


@settings(max_examples=12)
@given(
    shape=st.tuples(*[st.integers(2, 70)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
)
def test_any_volume_is_kept_bit_for_bit(cluster, tmp_path, shape, dtype):
    voxels = np.random.default_rng(3).integers(0, 255, shape).astype(dtype)
    tifffile.imwrite(tmp_path / "source.tif", voxels, photometric="minisblack")
    out = tmp_path / "out.zarr"
    convert(tmp_path / "source.tif", out, SMALL, cluster, if_exists="overwrite")
    volume = Volume(out)
    assert volume.dtype == dtype
    assert (volume.read(0, Box.whole(shape)) == voxels).all()
    volume.require_complete()


def test_folder_to_pyramid_and_windows(cluster, tmp_path, slices):
    voxels = np.random.default_rng(3).gamma(2, 400, (40, 150, 140)).astype(np.uint16)
    out = tmp_path / "out.zarr"
    convert(slices(voxels), out, SMALL, cluster)
    volume = Volume(out)
    assert volume.voxel_size == (2.0, 1.0, 1.0)
    window = volume.window(0, (0.03, 99.97))
    assert [window.low, window.high] == pytest.approx(np.percentile(voxels, [0.03, 99.97]))
    window = volume.window(0, (3.0, 97.0))
    assert [window.low, window.high] == pytest.approx(np.percentile(voxels, [3, 97]))
    assert len(volume.arrays) == 2
    assert (volume.arrays[1][0] == downsample(voxels, Zyx(1, 2, 2))).all()
    (step,) = volume.require_own().history
    assert (step.step, step.source) == ("convert", str(tmp_path / "slices"))
    assert not (out / FILE).exists()


def test_several_channels(cluster, tmp_path, noise):
    both = np.stack([noise, noise // 3])
    path = tmp_path / "two.tif"
    tifffile.imwrite(path, both, imagej=False, ome=True, metadata={"axes": "CZYX"})
    convert(path, tmp_path / "out.zarr", SMALL, cluster)
    volume = Volume(tmp_path / "out.zarr")
    assert (volume.read(1, Box.whole(noise.shape)) == noise // 3).all()
    assert volume.window(1, (3.0, 97.0)).high == pytest.approx(np.percentile(noise // 3, 97))


def test_some_channels_are_kept_in_the_order_asked_for(cluster, tmp_path, noise):
    image = np.stack([noise, noise // 2, noise // 3])
    path, out = tmp_path / "three.tif", tmp_path / "out.zarr"
    tifffile.imwrite(path, image, ome=True, metadata={"axes": "CZYX"})
    chosen = ConvertSettings.model_validate({**SMALL.model_dump(), "channel": "2,0"})
    convert(path, out, chosen, cluster)
    volume = Volume(out)
    assert volume.channels == ["channel 2", "channel 0"]
    for channel, divisor in enumerate((3, 1)):
        assert (volume.read(channel, Box.whole(noise.shape)) == noise // divisor).all()
    for wrong in ("3", "0,0"):
        chosen = ConvertSettings.model_validate({**SMALL.model_dump(), "channel": wrong})
        with pytest.raises(InputError, match=rf"three.tif has 3 channels: 0 .*--channel {wrong} "):
            convert(path, tmp_path / "no.zarr", chosen, cluster)
    assert not (tmp_path / "no.zarr").exists()


def test_regions_that_no_worker_holds_are_refused(cluster, tmp_path, slices, noise, monkeypatch):
    monkeypatch.setattr("isosr_pipeline.steps.convert.memory_per_task", lambda _client: 10**8)
    with pytest.raises(InputError, match=r"has 0\.1 GB, and needs about 0\.2 GB .*--workers"):
        convert(slices(noise), tmp_path / "out.zarr", SMALL, cluster)
    assert not (tmp_path / "out.zarr").exists()


def test_unknown_voxel_size_is_refused_before_work(cluster, tmp_path, slices, noise):
    out = tmp_path / "out.zarr"
    with pytest.raises(InputError, match="--voxel-size"):
        convert(slices(noise), out, ConvertSettings(), cluster)
    assert not out.exists()


def test_an_output_that_exists_is_kept(cluster, tmp_path, slices, noise):
    source, out = slices(noise), tmp_path / "out.zarr"
    convert(source, out, SMALL, cluster)
    before = Volume(out).require_own().id
    with pytest.raises(OutputExistsError, match="--overwrite"):
        convert(source, out, SMALL, cluster)
    convert(source, out, SMALL, cluster, if_exists="resume")
    assert Volume(out).require_own().id == before
    convert(source, out, SMALL, cluster, if_exists="overwrite")
    assert Volume(out).require_own().id != before
    precious = tmp_path / "precious"
    precious.mkdir()
    with pytest.raises(OutputExistsError, match="not a Zarr store"):
        convert(source, precious, SMALL, cluster, if_exists="overwrite")
    assert precious.is_dir()


def test_a_lost_slice_costs_only_its_regions_and_resume_mends_it(
    cluster, tmp_path, slices, noise, monkeypatch
):
    source, out = slices(noise), tmp_path / "out.zarr"
    reference = tmp_path / "reference.zarr"
    convert(source, reference, SMALL, cluster)
    lost = source / "slice35.tif"
    kept = lost.read_bytes()

    def opened_then_lost():
        lost.unlink()
        return cluster()

    with pytest.raises(
        WorkFailedError,
        match=r"2 of 4 regions failed:\n +region [23] .*: /.*slice35\.tif is not there",
    ):
        convert(source, out, SMALL, opened_then_lost)
    with pytest.raises(InputError, match="not complete"):
        Volume(out).require_complete()
    lost.write_bytes(kept)
    for torn in ("torn.partial", "0.__lock"):
        (out / "0" / "c" / "0" / torn).write_bytes(b"half a shard")
    convert(source, out, SMALL, cluster, if_exists="resume")
    assert same_files(reference, out)
    assert not [*out.rglob("*.partial"), *out.rglob("*.__lock")]
    assert Volume(out).window(0, (3.0, 97.0)) == Volume(reference).window(0, (3.0, 97.0))


def test_resume_with_other_parameters_is_refused(cluster, tmp_path, slices, noise):
    source, out = slices(noise), tmp_path / "out.zarr"
    convert(source, out, SMALL, cluster)
    other = SMALL.model_copy(update={"chunk": (8, 8, 8)})
    with pytest.raises(ResumeError, match=r"parameters\.chunk was \[16, 16, 16\]"):
        convert(source, out, other, cluster, if_exists="resume")


def test_a_second_convert_into_one_store_is_refused(cluster, tmp_path, slices, noise):
    source, out = slices(noise), tmp_path / "out.zarr"
    lost = source / "slice0.tif"
    content = lost.read_bytes()

    def opened_then_lost():
        lost.unlink()
        return cluster()

    with pytest.raises(WorkFailedError):
        convert(source, out, SMALL, opened_then_lost)
    lost.write_bytes(content)
    own = Volume(out).require_own()
    step = own.history[-1].model_dump(mode="json", exclude={"figures", "command"})
    making = {**step, "region": [32, 32, 64]}
    with Ledger(out, making, {"convert": 8}), pytest.raises(BusyError):
        convert(source, out, SMALL, cluster, if_exists="resume")


def test_an_output_that_is_or_holds_the_input_is_refused(cluster, tmp_path, slices, noise):
    folder = slices(noise)
    convert(folder, tmp_path / "in.zarr", SMALL, cluster)
    before = (tmp_path / "in.zarr" / "0" / "c" / "0" / "0" / "0" / "0").read_bytes()
    for source, out in (
        (tmp_path / "in.zarr", tmp_path / "in.zarr"),
        (tmp_path / "in.zarr", tmp_path / "in.zarr" / "out.zarr"),
        (folder, tmp_path),
    ):
        with pytest.raises((InputError, OutputExistsError), match=r"the output|not a Zarr store"):
            convert(source, out, SMALL, cluster, if_exists="overwrite")
    assert (tmp_path / "in.zarr" / "0" / "c" / "0" / "0" / "0" / "0").read_bytes() == before
    assert len(list(folder.iterdir())) == len(noise)


def test_a_store_that_is_being_filled_is_not_overwritten(cluster, tmp_path, slices, noise):
    source, out = slices(noise), tmp_path / "out.zarr"
    convert(source, out, SMALL, cluster)
    begun = Volume(out, writable=True)
    own = begun.require_own()
    begun.update(own.model_copy(update={"complete": False}))
    step = own.history[-1].model_dump(mode="json", exclude={"figures", "command"})
    making = {**step, "region": [32, 32, 64]}
    with Ledger(out, making, {"convert": 8}), pytest.raises(BusyError):
        convert(source, out, SMALL, cluster, if_exists="overwrite")
    assert (Volume(out).read(0, Box.whole(noise.shape)) == noise).all()


def test_a_source_that_has_changed_is_not_taken_for_the_one_converted(cluster, tmp_path, noise):
    source, out = tmp_path / "source.tif", tmp_path / "out.zarr"
    tifffile.imwrite(source, noise)
    convert(source, out, SMALL, cluster)
    tifffile.imwrite(source, noise // 2)
    with pytest.raises(ResumeError, match="source_fingerprint"):
        convert(source, out, SMALL, cluster, if_exists="resume")


def test_nan_is_named_and_not_spread(cluster, tmp_path):
    voxels = np.ones((40, 50, 45), np.float32)
    voxels[33, 40, 7] = np.nan
    tifffile.imwrite(tmp_path / "source.tif", voxels)
    with pytest.raises(WorkFailedError, match="1 voxels that are NaN"):
        convert(tmp_path / "source.tif", tmp_path / "out.zarr", SMALL, cluster)
