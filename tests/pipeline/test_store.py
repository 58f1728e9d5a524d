from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image

from isosr_pipeline.errors import (
    AlignmentError,
    BusyError,
    InputError,
    MissingInputError,
    OutputExistsError,
)
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.store.creation import create_volume, remove_leftovers, remove_store
from isosr_pipeline.store.intensity import LIGHT_SHEET
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec, cubic_shard, slab_shard
from isosr_pipeline.store.volume import Volume


def test_what_is_written_is_read(make_store, noise):
    volume = make_store(noise, voxel_size=(2.0, 0.5, 0.5))
    assert volume.voxel_size == (2.0, 0.5, 0.5)
    box = Box(Zyx(3, 4, 5), Zyx(30, 50, 41))
    assert (volume.read(0, box) == noise[box.slices]).all()


@pytest.mark.parametrize("length", [10, 2000])
def test_a_damaged_shard_is_named(make_store, noise, length):
    volume = make_store(noise)
    damaged = volume.path / "0" / "c" / "0" / "0" / "1" / "1"
    with damaged.open("r+b") as file:
        file.truncate(length)
    for box in (Box.whole(noise.shape), Box(Zyx(31, 33, 40), Zyx(40, 34, 41))):
        with pytest.raises(InputError, match=rf"{damaged} can't be read \(.*damaged"):
            volume.read(0, box)
    whole = Box(Zyx(0, 0, 0), Zyx(32, 32, 45))
    assert (volume.read(0, whole) == noise[whole.slices]).all()


def test_metadata_is_valid_for_others(make_store, noise):
    volume = make_store(noise)
    Image.from_zarr(zarr.open_group(volume.path, mode="r"))
    attributes = zarr.open_group(volume.path).attrs.asdict()["ome"]
    window = volume.window(0, (0.03, 99.97))
    assert attributes["omero"]["channels"][0]["window"]["start"] == window.low
    array = zarr.open_array(volume.path / "0")
    assert array.metadata.dimension_names == ("c", "z", "y", "x")
    assert array.shards == (1, 32, 32, 32)


def test_a_write_of_part_of_a_shard_is_refused(make_store, noise):
    volume = Volume(make_store(noise).path, writable=True)
    for box in (
        Box(Zyx(0, 0, 0), Zyx(16, 32, 32)),
        Box(Zyx(1, 0, 0), Zyx(32, 32, 32)),
        Box(Zyx(0, 0, 0), Zyx(64, 32, 32)),
    ):
        with pytest.raises(AlignmentError, match="axis z"):
            volume.write(0, box, np.zeros(box.shape, np.uint16))
    assert (volume.read(0, Box.whole(noise.shape)) == noise).all()


def test_what_a_killed_writer_left_does_not_get_into_a_shard(make_store, noise):
    volume = Volume(make_store(noise).path, writable=True)
    (shard,) = (volume.path / "0").glob("c/0/0/0/0")
    shard.with_name("0.__lock").write_bytes(b"Z" * 1_000_000)
    box = Box(Zyx(0, 0, 0), Zyx(32, 32, 32))
    volume.write(0, box, noise[box.slices])
    assert shard.stat().st_size < 100_000
    assert (volume.read(0, box) == noise[box.slices]).all()


def test_a_task_of_a_run_that_is_over_leaves_a_new_store_alone(make_store, noise):
    old = Volume(make_store(noise).path, writable=True)
    made_anew = StoreAttributes(complete=True)
    Volume(old.path, writable=True).update(made_anew)
    box = Box(Zyx(0, 0, 0), Zyx(32, 32, 32))
    with pytest.raises(BusyError, match="made anew by another process"):
        old.write(0, box, np.zeros(box.shape, np.uint16))
    assert (Volume(old.path).read(0, box) == noise[box.slices]).all()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux holds folders by number")
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("take", [shutil.rmtree, lambda store: store.rename(f"{store}.old")])
def test_a_store_that_is_taken_away_is_not_made_again(make_store, noise, take, begun):
    volume = make_store(noise)
    box = Box(Zyx(0, 0, 0), Zyx(32, 32, 32))
    with suppress(OSError), volume.writing() as shards:
        if begun:
            shards.start(0, box, noise[box.slices])
            shards.wait()
        take(volume.path)
        shards.start(0, box, noise[box.slices])
    assert not volume.path.exists()


def test_only_what_was_left_of_this_store_is_removed(tmp_path):
    store = tmp_path / "brain"
    own = [tmp_path / f".brain.0123abcd.{kind}" for kind in ("partial", "removed")]
    others = [tmp_path / ".brain.zarr.0123abcd.partial", tmp_path / ".brain.old.partial"]
    for folder in (store, *own, *others):
        folder.mkdir()
    (store / "0_1f.__lock").touch()
    remove_leftovers(store)
    assert sorted(tmp_path.iterdir()) == sorted([store, *others])
    assert not list(store.iterdir())


def test_the_last_shard_may_be_cut_off_by_the_border(make_store, noise):
    volume = Volume(make_store(noise).path, writable=True)
    volume.write(0, Box(Zyx(32, 32, 32), Zyx(40, 50, 45)), np.zeros((8, 18, 13), np.uint16))
    assert volume.read(0, Box(Zyx(32, 32, 32), Zyx(40, 50, 45))).max() == 0
    assert (volume.read(0, Box.whole((32, 50, 45))) == noise[:32]).all()


def test_nothing_is_created_over_anything(make_store, noise):
    volume = make_store(noise)
    spec = VolumeSpec(
        (1, 8, 8, 8), np.dtype("uint8"), (1, 1, 1), Zyx(8, 8, 8), Zyx(8, 8, 8), ("a",)
    )
    with pytest.raises(OutputExistsError):
        create_volume(volume.path, spec, volume.require_own())
    assert (volume.read(0, Box.whole(noise.shape)) == noise).all()


def test_a_failed_creation_leaves_nothing(tmp_path, monkeypatch, make_store, noise):
    own = make_store(noise).require_own()
    spec = VolumeSpec(
        (1, 8, 8, 8), np.dtype("uint8"), (1, 1, 1), Zyx(8, 8, 8), Zyx(8, 8, 8), ("a",)
    )

    def fail(*_args: object, **_options: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("isosr_pipeline.store.creation.write_ome", fail)
    folder = tmp_path / "new"
    with pytest.raises(OSError, match="no space"):
        create_volume(folder / "x.zarr", spec, own)
    assert list(folder.iterdir()) == []


def test_only_stores_are_removed(tmp_path, make_store, noise):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "holiday.jpg").write_bytes(b"x")
    link = tmp_path / "link.zarr"
    store = make_store(noise).path
    link.symlink_to(store)
    with pytest.raises(OutputExistsError, match="not a Zarr store"):
        remove_store(precious)
    # Attributes alone are no store.
    (precious / ".zattrs").write_text("{}")
    with pytest.raises(OutputExistsError, match="not a Zarr store"):
        remove_store(precious)
    with pytest.raises(OutputExistsError, match=f"symbolic link.*{store}"):
        remove_store(link)
    assert (precious / "holiday.jpg").exists()
    remove_store(store)
    assert not store.exists()


def test_a_level_path_that_leads_out_of_the_store_is_refused(make_store, noise):
    path = make_store(noise).path
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../secret"
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="leads out of the store"):
        Volume(path)


def test_unknown_keys_and_versions_of_the_own_attribute_are_refused(make_store, noise):
    path = make_store(noise).path
    group = zarr.open_group(path, mode="r+")
    group.attrs["isosr"] = {**group.attrs.asdict()["isosr"], "format": 99}
    with pytest.raises(InputError, match="use the version that wrote"):
        Volume(path)


def test_what_is_no_store_is_named(tmp_path, make_store, noise):
    with pytest.raises(MissingInputError, match=r"nothing\.zarr does not exist"):
        Volume(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="isosr-pipeline convert"):
        Volume(tmp_path / "folder")
    zarr.create_group(tmp_path / "plain.zarr")
    with pytest.raises(InputError, match="not an OME-Zarr image"):
        Volume(tmp_path / "plain.zarr")
    store = make_store(noise).path
    remove = store / "0" / "zarr.json"
    remove.unlink()
    with pytest.raises(InputError, match="cut short"):
        Volume(store)


@pytest.mark.parametrize("content", ["{", "[]", "7", '{"zarr_format": 3}', '{"node_type": 1}'])
@pytest.mark.parametrize("place", ["zarr.json", "0/zarr.json"])
def test_damaged_metadata_is_named(make_store, noise, place, content):
    store = make_store(noise).path
    (store / place).write_text(content)
    with pytest.raises(InputError, match=r"store1\.zarr.*(again|cut short|convert)"):
        Volume(store)


def test_a_file_or_a_store_that_may_not_be_read_is_named(make_store, noise, monkeypatch):
    store = make_store(noise).path
    with pytest.raises(InputError, match="is a file, and a store is a folder"):
        Volume(store / "zarr.json")

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zarr.open_group", refuse)
    with pytest.raises(InputError, match=r"Permission denied.*you may read it"):
        Volume(store)


@pytest.mark.parametrize("size", [0.0, -1.0, 1e30, float("inf"), float("nan")])
def test_voxel_sizes_that_make_no_sense_are_refused(make_store, noise, size):
    with pytest.raises(InputError, match=r"along y, and must be .*--voxel-size"):
        _spec((1, 8, 8, 8), voxel_size=(1.0, size, 1.0))
    path = make_store(noise).path
    metadata = json.loads((path / "zarr.json").read_text())
    level = metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    level["coordinateTransformations"][0]["scale"][2] = size
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=r"store1\.zarr: voxels are .* along y, and must be"):
        Volume(path)


def _spec(shape, chunk=(8, 8, 8), shard=(8, 8, 8), voxel_size=(1.0, 1.0, 1.0)):
    dtype = np.dtype("uint16")
    return VolumeSpec(shape, dtype, voxel_size, Zyx(*chunk), Zyx(*shard), ("a",))


def test_chunks_and_shards_are_cut_to_what_holds_the_volume():
    huge = (100_000,) * 3
    spec = _spec((1, 3, 64, 100), huge, huge)
    assert spec.chunk == spec.shard == (64, 64, 128)
    assert _spec((1, 3, 64, 100), (64, 64, 64), (256, 256, 256)).shard == (256, 256, 256)


def test_chunks_and_shards_that_no_worker_holds_are_refused():
    shape = (1, 40_000, 40_000, 40_000)
    with pytest.raises(InputError, match=r"chunk of 2048 .* takes 16\.0 GiB.*--chunk"):
        _spec(shape, (2048, 2048, 2048), (2048, 2048, 2048))
    with pytest.raises(InputError, match=r"shard of 4096 .* takes 128\.0 GiB.*--shard"):
        _spec(shape, (64, 64, 64), (4096, 4096, 4096))
    assert _spec((1, 70, 70, 70), (64, 64, 64), (4096, 4096, 4096)).shard.z == 4096


def test_a_window_that_was_not_recorded_is_named(make_store, noise):
    volume = make_store(noise)
    assert volume.window(0, LIGHT_SHEET).low == np.percentile(noise, 3)
    with pytest.raises(InputError, match=r"no intensity window of 1 to 99 %"):
        volume.window(0, (1.0, 99.0))


@given(st.tuples(*[st.integers(1, 40_000)] * 3))
def test_cubic_shards_are_few_and_whole_chunks(shape):
    chunk = Zyx(64, 64, 64)
    shard = cubic_shard((1, *shape), chunk)
    assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
    terabyte = 2 * np.prod(shape, dtype=float) <= 1e12
    if terabyte and min(shape) > 512:
        count = np.prod([-(-n // s) for n, s in zip(shape, shard, strict=True)])
        assert count < 10_000


@given(
    st.tuples(*[st.integers(1000, 40_000)] * 2),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.floats(0.5, 8),
    st.integers(1, 20),
)
def test_a_terabyte_of_planes_is_under_ten_thousand_files(plane, dtype, z_size, terabytes):
    itemsize = np.dtype(dtype).itemsize
    planes = min(terabytes * 10**12 // (plane[0] * plane[1] * itemsize), 200_000)
    assume(planes > 300)
    shape, size, chunk = (1, planes, *plane), (z_size, 1.0, 1.0), Zyx(64, 64, 64)
    shard = slab_shard(shape, size, chunk, itemsize)
    spec = VolumeSpec(shape, np.dtype(dtype), size, chunk, shard, ("a",))
    assert spec.files < 10_000 * max(1, np.prod(shape, dtype=float) * itemsize / 1e12)
    assert np.prod(shard) * itemsize <= 2**30


@given(st.tuples(*[st.integers(1, 3000)] * 3), st.tuples(*[st.integers(1, 130)] * 3))
def test_slab_shards_are_whole_chunks_and_no_longer_than_the_volume(shape, chunk):
    shard = slab_shard((2, *shape), (2.0, 1.0, 1.0), Zyx(*chunk), 2)
    for length, s, c in zip(shape, shard, chunk, strict=True):
        assert s % c == 0
        assert s - c < length
