from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from isosr_pipeline.errors import InputError
from isosr_pipeline.foreground import choose_level, find_foreground
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.sampling import UNIFORM
from isosr_pipeline.store.pyramid import downsample
from isosr_pipeline.training.crops import Crops, check_alike
from isosr_pipeline.training.stored_crops import measured_planes, prepare, stored_crop

CPU = torch.device("cpu")
CROP = Zyx(16, 16, 16)
WINDOW = [[(100.0, 1100.0)]]


def _with_pyramid(make_store, voxels, **options):
    volume = make_store(voxels, **options)
    for level, array in enumerate(volume.arrays[1:], start=1):
        shapes = zip(volume.arrays[level - 1].shape, array.shape, strict=True)
        factors = [-(-a // b) for a, b in shapes][1:]
        for channel in range(volume.shape[0]):
            finer = np.asarray(volume.arrays[level - 1][channel])
            coarse = type(volume)(volume.path, writable=True)
            whole = Box.whole(array.shape[1:])
            coarse.write(channel, whole, downsample(finer, Zyx(*factors)), level)
    return volume


def _starts(crops, number):
    draws = [crops.sampler.draw(np.random.default_rng(index)) for index in range(number)]
    return np.array([place.start for place in draws])


def test_where_nothing_stands_out_crops_come_from_everywhere(make_store):
    empty = make_store(np.zeros((40, 40, 40), np.uint16)).path
    seen = np.zeros((40, 40, 40), np.uint16)
    seen[:20] = 3000
    (remark,) = Crops([empty], CROP, WINDOW, seed=0).remarks()
    assert remark == f"{empty}: nothing stands out, so that crops are drawn from everywhere"
    both = Crops([empty, make_store(seen).path], CROP, 2 * WINDOW, seed=0)
    first, second = both.remarks()
    assert "only crops drawn from everywhere may be of it" in first
    assert "nine crops in ten" in second
    stores = [both.sampler.draw(np.random.default_rng(n)).store for n in range(300)]
    assert 0 < stores.count(0) < 300 * UNIFORM


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("z", [1.0, 2.5])
def test_crops_are_drawn_where_something_is(make_store, monkeypatch, coarse, z):
    depth = round(160 / z)
    voxels = np.full((depth, 160, 160), 110, np.uint16)
    voxels[-round(32 / z) :, :32, -32:] = 2000
    volume = _with_pyramid(make_store, voxels, voxel_size=(z, 1, 1))
    if coarse:
        monkeypatch.setattr("isosr_pipeline.foreground.MOST_VOXELS", 160**3 // 7)
    assert choose_level(volume) == int(coarse)
    crops = Crops([volume.path], CROP, WINDOW, seed=0)
    starts = _starts(crops, 400)
    reach = np.array([160 - 32 - 16, 0, 160 - 32 - 16]) - np.array([4, 0, 4])
    inside = (starts >= reach).all(axis=1) & (starts[:, 1] <= 36)
    assert inside.mean() > 1 - UNIFORM - 0.05
    assert (starts >= 0).all()
    assert (starts + 16 <= IsotropicView(volume).shape).all()
    view = IsotropicView(volume)
    bright = [view.read(0, Box(Zyx(*s), Zyx(*(s + 16)))).max() > 1000 for s in starts[inside]]
    assert np.mean(bright) > 0.9


def test_flat_and_empty_volumes_are_drawn_from_everywhere(make_store):
    for value in (0, 110):
        store = make_store(np.full((40, 48, 56), value, np.uint16)).path
        starts = _starts(Crops([store], CROP, WINDOW, seed=0), 500)
        assert starts.min(axis=0).tolist() == [0, 0, 0]
        assert starts.max(axis=0).tolist() == [24, 32, 40]
        assert starts.mean(axis=0) == pytest.approx([12, 16, 20], abs=1.5)


def test_what_was_never_acquired_is_no_foreground():
    voxels = np.zeros((8, 8, 8), np.uint16)
    voxels[4:] = 100
    voxels[6:] = 180
    found = find_foreground(voxels, (0.0, 4000.0))
    assert found[6:].all()
    assert not found[:6].any()
    # Tissue that fills all of the volume is all foreground, whatever its contrast.
    tissue = np.random.default_rng(0).integers(1200, 4000, (8, 8, 8), dtype=np.uint16)
    assert find_foreground(tissue, (500.0, 4700.0)).all()
    floats = np.array([np.nan, -1.0, 0.0, 0.1, 5.0], np.float32)
    assert find_foreground(floats, (-1.0, 10.0)).tolist() == [False, False, False, True, True]


def test_a_store_without_a_small_level_is_drawn_from_everywhere(make_store, monkeypatch, noise):
    store = make_store(noise).path
    monkeypatch.setattr("isosr_pipeline.foreground.MOST_VOXELS", 1000)
    crops = Crops([store], CROP, WINDOW, seed=0)
    (remark,) = crops.remarks()
    assert "drawn from everywhere" in remark
    assert str(store) in remark
    assert crops.sampler.sums is None
    assert list(Crops([store], CROP, WINDOW, seed=0, sampling="uniform").remarks()) == []


def test_crops_are_the_same_in_another_process(make_store, noise):
    crops = Crops([make_store(noise).path], CROP, WINDOW, seed=5, rotations=True)
    _ = crops[0]
    again = pickle.loads(pickle.dumps(crops))  # noqa: S301 - what loaders are sent
    for index in (3, 1):
        for a, b in zip(crops[index], again[index], strict=True):
            assert torch.equal(a, b)
    other = crops.of_stream(1)
    assert other.sampler is crops.sampler
    assert (other.stream, crops.stream) == (1, 0)


@settings(max_examples=60)
@given(
    st.sampled_from([1.0, 2.0, 3.0, 2.5, 1.37, 0.5, 0.73]),
    st.tuples(*[st.integers(2, 12)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.integers(0, 2**32),
)
def test_prepared_crops_equal_the_isotropic_view(make_store, ratio, crop, flips, seed):
    volume = np.random.default_rng(1).integers(0, 4000, (14, 15, 13), dtype=np.uint16)
    store = make_store(volume, voxel_size=(ratio, 1.0, 1.0))
    view, rng = IsotropicView(store), np.random.default_rng(seed)
    crop = tuple(min(c, n) for c, n in zip(crop, view.shape, strict=True))
    for last in (False, True):  # also at the far border
        room = [n - c for n, c in zip(view.shape, crop, strict=True)]
        start = room if last else [int(rng.integers(n + 1)) for n in room]
        box = Box(Zyx(*start), Zyx(*(a + c for a, c in zip(start, crop, strict=True))))
        planes = measured_planes(box.start.z, crop[0], view.planes_per_voxel, 14)
        assert 0 <= planes.first < planes.stop <= 14
        first = measured_planes(0, crop[0], view.planes_per_voxel, 14)
        assert planes.stop - planes.first == first.stop - first.first
        voxels = volume[planes.first : planes.stop, box.slices[1], box.slices[2]].copy()
        stored = stored_crop(voxels, planes, (100.0, 3100.0), flips, 0)
        found = prepare(default_collate([stored]), CPU)[0, 0].numpy()
        read = (view.read(0, box) - np.float32(100)) / np.float32(3000)
        expected = np.flip(read, [axis for axis in range(3) if flips[axis]])
        assert found.shape == crop
        assert found == pytest.approx(expected, abs=1e-6)


def test_quarter_turns_are_exact(make_store, noise):
    store = make_store(noise[:16, :16, :16]).path
    crops = Crops([store], CROP, WINDOW, seed=0, rotations=True)
    whole = (noise[:16, :16, :16].astype(np.float32) - 100) / 1000
    seen = set()
    for index in range(60):
        crop = crops.read(index, CPU)[0].numpy()
        for number in range(16):
            axes = [axis for axis in range(3) if number >> axis & 1]
            if np.allclose(np.rot90(np.flip(whole, axes), number >> 3, (1, 2)), crop):
                seen.add(number)
                break
        else:
            pytest.fail("neither a flip nor a quarter turn of the volume")
    assert len(seen) == 16


def test_a_batch_may_hold_crops_of_stores_that_are_sampled_otherwise(make_store):
    rng = np.random.default_rng(0)
    stores = [
        make_store(rng.integers(0, 200, (20, 20, 20), dtype=np.uint8)),
        make_store(rng.integers(0, 4000, (9, 20, 20), dtype=np.uint16), voxel_size=(2.5, 1, 1)),
    ]
    crops = Crops([s.path for s in stores], CROP, [[(0.0, 200.0)], [(0.0, 4000.0)]], seed=0)
    batch = default_collate([crops[index] for index in range(12)])
    assert batch.voxels.dtype == torch.uint16
    made = prepare(batch, CPU)
    assert made.shape == (12, 1, 16, 16, 16)
    for index in range(12):
        assert torch.equal(made[index], crops.read(index, CPU))
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1.001


def test_stores_of_two_microscopes_are_refused_by_name(make_store, noise):
    a, b = make_store(noise), make_store(noise, voxel_size=(3.0, 1.02, 1.02))
    close = make_store(noise, voxel_size=(3.0, 1.005, 1.005))
    check_alike([IsotropicView(a), IsotropicView(close)])
    with pytest.raises(InputError, match=r"store1.zarr has .* 1 µm and .*store2.zarr of 1.02 µm"):
        check_alike([IsotropicView(a), IsotropicView(b)])


def test_damaged_chunks_are_named(make_store, noise):
    volume = make_store(noise)
    reader = LevelReader(volume)
    box = Box(Zyx(3, 4, 5), Zyx(19, 20, 21))
    assert (reader.read(0, box) == noise[box.slices]).all()
    for shard in (p for p in Path(volume.path / "0" / "c").rglob("*") if p.is_file()):
        shard.write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"z 3:19, .* can't be read .*damaged"):
        LevelReader(volume).read(0, box)
