from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.geometry import Box, RegionGrid, Zyx, blocks, context, reflect

lengths = st.tuples(*[st.integers(1, 40)] * 3)
positions = st.tuples(*[st.integers(-20, 60)] * 3)


@given(st.integers(1, 3), lengths, lengths)
def test_regions_cover_every_voxel_once(channels, shape, region):
    grid = RegionGrid((channels, *shape), Zyx(*region))
    seen = np.zeros((channels, *shape), int)
    for index, part in enumerate(grid):
        assert part.index == index
        seen[(part.channel, *part.box.slices)] += 1
    assert (seen == 1).all()
    assert len(grid) == np.prod(grid.counts)


def test_a_million_regions_cost_nothing():
    grid = RegionGrid((1, 100_000, 100_000, 100_000), Zyx(1000, 1000, 1000))
    assert len(grid) == 1_000_000
    assert grid[999_999].box.stop == (100_000, 100_000, 100_000)
    with pytest.raises(IndexError):
        grid[1_000_000]


@given(positions, lengths, lengths)
def test_blocks_cover_a_region_once(start, shape, block):
    region = Box(Zyx(*start), Zyx(*(a + n for a, n in zip(start, shape, strict=True))))
    seen = np.zeros(shape, int)
    for part in blocks(region, Zyx(*block)):
        seen[part.relative_to(region.start).slices] += 1
    assert (seen == 1).all()


@given(positions, lengths, st.integers(0, 50), st.sampled_from([1, 2, 4, 8]))
def test_context_has_the_halo_and_begins_and_ends_on_the_stride(start, shape, halo, stride):
    block = Box(Zyx(*start), Zyx(*(a + n for a, n in zip(start, shape, strict=True))))
    around = context(block, halo, stride)
    for a, b, first, last in zip(
        block.start, block.stop, around.read.start, around.read.stop, strict=True
    ):
        assert first % stride == 0
        assert last % stride == 0
        assert halo <= a - first < halo + stride
        assert halo <= last - b < halo + stride
    assert around.keep.shape == block.shape
    assert around.keep.start == tuple(
        a - r for a, r in zip(block.start, around.read.start, strict=True)
    )


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40))
def test_reflection_is_that_of_numpy(length, before, after):
    values = np.arange(length)
    expected = np.pad(values, (before, after), mode="reflect" if length > 1 else "edge")
    assert (values[reflect(-before, length + after, length)] == expected).all()
