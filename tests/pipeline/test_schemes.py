from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.errors import HopelessError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.restoring.schemes import (
    CORE,
    OVERLAP,
    ExactScheme,
    PaperScheme,
    coverage,
)

lengths = st.tuples(*[st.integers(1, 60)] * 3).map(lambda values: Zyx(*values))


@st.composite
def boxes(draw, longest=60):
    start = draw(st.tuples(*[st.integers(0, 40)] * 3))
    shape = draw(st.tuples(*[st.integers(1, longest)] * 3))
    return Box(Zyx(*start), Zyx(*(a + n for a, n in zip(start, shape, strict=True))))


@given(region=boxes(), block=lengths, halo=st.integers(0, 30), stride=st.integers(1, 8))
def test_exact_blocks_cover_a_region_once_with_their_halo(region, block, halo, stride):
    seen = np.zeros(region.shape, int)
    for found in ExactScheme(block, halo, stride).blocks(region):
        seen[found.kept.relative_to(region.start).slices] += 1
        assert all(a % stride == 0 for a in found.read.start)
        assert all(k - r >= halo for k, r in zip(found.kept.start, found.read.start, strict=True))
        assert all(r - k >= halo for k, r in zip(found.kept.stop, found.read.stop, strict=True))
    assert (seen == 1).all()


@given(box=boxes(), halo=st.integers(0, 30))
def test_halves_cover_what_was_halved(box, halo):
    scheme = ExactScheme(box.shape, halo, 4)
    (whole,) = scheme.blocks(box)
    if max(box.shape) <= 32:
        with pytest.raises(HopelessError, match="not even a block of"):
            scheme.halved(whole)
        return
    halves = scheme.halved(whole)
    assert len(halves) == 2
    assert sum(half.kept.voxels for half in halves) == box.voxels
    assert all(half.read.voxels < whole.read.voxels for half in halves)
    assert max(half.kept.shape[box.shape.index(max(box.shape))] for half in halves) < max(box.shape)


volumes = st.tuples(st.integers(1, 500), st.integers(1, 260), st.integers(1, 200))


@given(shape=volumes.map(lambda values: Zyx(*values)), data=st.data())
def test_the_publications_cores_overlap_by_30_and_reach_the_end(shape, data):
    start = Zyx(*(data.draw(st.integers(0, n - 1)) for n in shape))
    stop = Zyx(*(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    region = Box(start, stop)
    # By hand: the first core begins the axis, each further one begins 90 voxels later, and none
    # begins where the core before has reached the end.
    by_hand = np.ones(shape, int)
    for axis, length in enumerate(shape):
        counts = np.zeros(length, int)
        origin = 0
        while True:
            counts[origin : origin + CORE] += 1
            if origin + CORE >= length:
                break
            origin += CORE - OVERLAP
        by_hand *= counts.reshape([-1 if a == axis else 1 for a in range(3)])
    found = np.zeros(region.shape, int)
    for block in PaperScheme(shape).blocks(region):
        assert block.read.shape == (160, 160, 160)
        found[block.kept.relative_to(start).slices] += 1
    assert (found == by_hand[region.slices]).all()
    assert (coverage(region, shape) == found).all()


def test_borders_are_counted_from_what_is_restored():
    box = Box(Zyx(10, 0, 100), Zyx(130, 50, 330))
    exact = ExactScheme(Zyx(30, 64, 100), 26, 4).borders(box, Zyx(60, 64, 100))
    assert [list(axis) for axis in exact] == [[30, 60, 90], [], [100, 200]]
    paper = PaperScheme(Zyx(200, 50, 330)).borders(box, Zyx(60, 64, 100))
    assert [list(axis) for axis in paper] == [[80, 110], [], [20, 80, 110, 170, 200]]


def test_the_publications_blocks_have_one_size():
    scheme = PaperScheme(Zyx(50, 50, 50))
    (block,) = scheme.blocks(Box.whole((50, 50, 50)))
    with pytest.raises(HopelessError, match="as in the publication, does not fit"):
        scheme.halved(block)
