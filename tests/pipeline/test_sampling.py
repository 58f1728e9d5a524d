from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.geometry import Zyx
from isosr_pipeline.sampling import UNIFORM, Cells, Grid, Sampler, shares

LENGTHS = st.tuples(*[st.integers(1, 12)] * 3)


@st.composite
def _cells(draw):
    crop, more = draw(LENGTHS), draw(st.tuples(*[st.integers(0, 40)] * 3))
    shape = Zyx(*(c + m for c, m in zip(crop, more, strict=True)))
    return shape, Zyx(*crop), Cells.of(shape, Zyx(*crop), draw(st.integers(1, 200)))


@given(_cells())
def test_cells_hold_every_admissible_start_once(given_cells):
    shape, crop, cells = given_cells
    for axis, (n, c) in enumerate(zip(shape, crop, strict=True)):
        first, stop = cells.bounds(axis)
        covered = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
        assert (covered == np.arange(n - c + 1)).all()
    assert cells.sizes().shape == cells.counts
    assert cells.sizes().sum() == math.prod(cells.starts)


@given(_cells(), st.integers(0, 2**32))
def test_draws_lie_in_their_cell(given_cells, seed):
    _, _, cells = given_cells
    rng = np.random.default_rng(seed)
    number = int(rng.integers(len(cells)))
    start = cells.draw(rng, number)
    for axis, index in enumerate(np.unravel_index(number, cells.counts)):
        first, stop = cells.bounds(axis)
        assert first[index] <= start[axis] < stop[index]


def test_there_are_never_too_many_cells():
    cells = Cells.of(Zyx(12_000, 46_000, 46_000), Zyx(144, 144, 144))
    assert len(cells) <= 1 << 20
    assert cells.cell == (576, 576, 576)


@given(_cells(), st.integers(0, 2**32))
def test_shares_are_what_crops_hold(given_cells, seed):
    shape, crop, cells = given_cells
    mask = np.random.default_rng(seed).random(shape) < 0.3
    single = Cells(cells.starts, Zyx(1, 1, 1))
    found = shares(mask, single, crop, [Grid(1.0, 1.0)] * 3)
    windows = np.lib.stride_tricks.sliding_window_view(mask, crop)
    assert found == pytest.approx(windows.mean(axis=(3, 4, 5)), abs=1e-12)
    # Of a cell of up to eight starts along each axis it is the mean.
    small = Cells(cells.starts, Zyx(*(min(8, n) for n in cells.starts)))
    means = shares(mask, small, crop, [Grid(1.0, 1.0)] * 3)
    corner = tuple(slice(0, n) for n in small.cell)
    assert means[0, 0, 0] == pytest.approx(found[corner].mean(), abs=1e-12)


@settings(max_examples=50)
@given(
    st.floats(0.1, 4),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 30),
    st.integers(4, 20),
)
def test_a_coarse_voxel_lies_where_its_fine_ones_do(planes_per_voxel, step, start, length):
    depth = 128
    low, high = Grid(planes_per_voxel, step).edges(np.array([float(start)]), length, depth // step)
    # A voxel of the isotropic grid is as long as so many planes, about its centre.
    centres = np.array([start, start + length - 1]) * planes_per_voxel + 0.5
    expected = np.clip(
        [centres[0] - planes_per_voxel / 2, centres[1] + planes_per_voxel / 2], 0, depth
    )
    assert [low[0] * step, high[0] * step] == pytest.approx(expected, abs=1e-9)


def _sampler(weights: np.ndarray) -> Sampler:
    cells = Cells(Zyx(*(10 * n for n in weights.shape)), Zyx(10, 10, 10))
    return Sampler.weighted([cells], [[weights]])


def test_places_are_drawn_in_proportion_to_foreground():
    weights = np.array([[[0.1, 0.0], [0.4, 0.5]]])
    sampler, rng = _sampler(weights), np.random.default_rng(0)
    drawn = np.zeros_like(weights)
    for _ in range(4000):
        drawn[tuple(n // 10 for n in sampler.draw(rng).start)] += 1
    expected = UNIFORM / 4 + (1 - UNIFORM) * weights
    assert drawn / drawn.sum() == pytest.approx(expected, abs=0.03)


def test_without_foreground_places_are_drawn_alike():
    sampler, rng = _sampler(np.zeros((1, 2, 2))), np.random.default_rng(0)
    places = np.array([sampler.draw(rng).start for _ in range(2000)])
    assert places.min(axis=0).tolist() == [0, 0, 0]
    assert places.max(axis=0).tolist() == [9, 19, 19]
    assert places.mean(axis=0) == pytest.approx([4.5, 9.5, 9.5], abs=0.5)
    assert sampler.share == [0]


def test_stores_are_drawn_by_their_foreground_and_channels_alike():
    cells = Cells(Zyx(10, 10, 10), Zyx(10, 10, 10))
    large = Cells(Zyx(10, 10, 20), Zyx(10, 10, 10))
    one, two = np.full((1, 1, 1), 0.4), np.array([[[0.4, 0.4]]])
    sampler = Sampler.weighted([cells, large], [[one, 0 * one], [two]])
    assert sampler.share == pytest.approx([0.2, 0.4])
    rng = np.random.default_rng(0)
    drawn = [sampler.draw(rng)[:2] for _ in range(4000)]
    stores = np.mean([store for store, _ in drawn])
    assert stores == pytest.approx(UNIFORM * 2 / 3 + (1 - UNIFORM) * 0.8, abs=0.03)
    assert np.mean([channel for store, channel in drawn if store == 0]) == pytest.approx(
        0.5, abs=0.06
    )


def test_weights_of_huge_volumes_fit_their_integers():
    cells = Cells.of(Zyx(100_000, 1_000_000, 1_000_000), Zyx(144, 144, 144))
    sampler = Sampler.weighted([cells], [[np.ones(cells.counts)]])
    assert sampler.sums is not None
    assert (np.diff(sampler.sums[0][0]) > 0).all()
    assert sampler.share == pytest.approx([1])
