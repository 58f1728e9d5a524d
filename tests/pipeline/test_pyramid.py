from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.store.pyramid import Level, downsample, parent_box, plan_levels


def test_z_is_halved_only_once_it_is_as_fine_as_x_and_y():
    levels = plan_levels(Zyx(300, 2000, 2000), (4.0, 1.0, 1.0))
    assert [level.factors for level in levels[1:4]] == [(1, 2, 2), (1, 2, 2), (2, 2, 2)]
    assert levels[2].scale((4.0, 1.0, 1.0)) == (4.0, 4.0, 4.0)


@given(st.tuples(*[st.integers(1, 3000)] * 3), st.floats(0.1, 10))
def test_the_pyramid_ends_and_keeps_its_extent(shape, z_size):
    voxel_size = (z_size, 1.0, 1.0)
    levels = plan_levels(Zyx(*shape), voxel_size)
    assert max(levels[-1].shape) <= 128
    for level in levels:
        extent = np.array(level.shape) * level.step
        assert (extent >= shape).all()
        assert (extent < np.array(shape) + level.step).all()


def test_translation_is_the_centre_of_the_first_voxel():
    level = plan_levels(Zyx(300, 300, 300), (1.0, 0.5, 0.5))[2]
    assert level.step == (2, 4, 4)
    assert level.translation((1.0, 0.5, 0.5)) == (0.5, 0.75, 0.75)


def test_integers_are_averaged_and_rounded():
    volume = np.array([[[0, 1], [1, 1]], [[1, 1], [1, 2]]], np.uint8)
    assert downsample(volume, Zyx(2, 2, 2)) == 1
    assert (downsample(volume, Zyx(1, 1, 2)) == [[[0], [1]], [[1], [2]]]).all()


def test_no_intensity_of_16_bits_overflows():
    assert downsample(np.full((3, 3, 3), 65535, np.uint16), Zyx(2, 2, 2)).min() == 65535


@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from([Zyx(2, 2, 2), Zyx(1, 2, 2)]),
)
def test_block_by_block_equals_the_whole(shape, block, factors):
    volume = np.random.default_rng(0).random(shape, np.float32)
    level = Level(Zyx(*shape), step=factors, factors=factors)
    whole = downsample(volume, level.factors)
    parts = np.empty_like(whole)
    for part in blocks(Box.whole(whole.shape), Zyx(*block)):
        parent = parent_box(part, level, Zyx(*shape))
        parts[part.slices] = downsample(volume[parent.slices], level.factors)
    assert parts == pytest.approx(whole)
