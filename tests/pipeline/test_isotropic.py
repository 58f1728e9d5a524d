from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView


def _resampled(volume: np.ndarray, ratio: float) -> np.ndarray:
    """Resample the whole volume along z, as an independent reference."""
    depth = len(volume)
    planes = int((depth - 1) * ratio + 1e-3) + 1
    positions = np.arange(planes) / ratio
    flat = volume.reshape(depth, -1).astype(float)
    columns = [np.interp(positions, np.arange(depth), column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(planes, *volume.shape[1:])


def test_isotropic_volumes_are_seen_as_they_are(make_store, noise):
    view = IsotropicView(make_store(noise))
    assert view.shape == noise.shape
    assert (view.read(0, Box.whole(noise.shape)) == noise).all()


@settings(max_examples=25)
@given(
    st.sampled_from([2.0, 3.0, 2.5, 1.37, 0.5]),
    st.tuples(*[st.integers(-15, 40)] * 3),
    st.tuples(*[st.integers(1, 30)] * 3),
)
def test_any_box_equals_resampling_and_reflecting_the_whole(make_store, ratio, start, shape):
    volume = np.random.default_rng(1).integers(0, 4000, (11, 13, 9), dtype=np.uint16)
    view = IsotropicView(make_store(volume, voxel_size=(ratio, 1.0, 1.0)))
    whole = _resampled(volume, ratio)
    assert view.shape == whole.shape
    assert view.voxel_size == (1.0, 1.0, 1.0)
    margin = 120
    padded = np.pad(whole, margin, mode="reflect")
    box = Box(Zyx(*start), Zyx(*(a + n for a, n in zip(start, shape, strict=True))))
    expected = padded[box.relative_to((-margin,) * 3).slices]
    assert view.read(0, box) == pytest.approx(expected, rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("ratio", [1.05, 1.3])
def test_consecutive_planes_are_interpolated_too(make_store, ratio):
    volume = np.random.default_rng(1).integers(0, 4000, (11, 5, 4), dtype=np.uint16)
    view = IsotropicView(make_store(volume, voxel_size=(ratio, 1.0, 1.0)))
    box = Box(Zyx(1, 0, 0), Zyx(4, 5, 4))
    expected = _resampled(volume, ratio)[box.slices]
    assert view.read(0, box) == pytest.approx(expected, rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("size", [(200.0, 1.0, 1.0), (1.0, 200.0, 200.0)])
def test_voxels_that_are_far_from_isotropic_are_refused(make_store, noise, size):
    with pytest.raises(InputError, match=r"100 times .*--voxel-size"):
        IsotropicView(make_store(noise, voxel_size=size))


def test_oblong_lateral_voxels_are_refused(make_store, noise):
    with pytest.raises(InputError, match="along y"):
        IsotropicView(make_store(noise, voxel_size=(2.0, 1.0, 1.5)))
