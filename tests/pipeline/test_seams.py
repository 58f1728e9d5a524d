from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, RegionGrid, Zyx, blocks
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.seams import (
    CUBES,
    DRAWS,
    REACH,
    WIDTH,
    Borders,
    block_borders,
    core_borders,
    seam_score,
)

lengths = st.tuples(*[st.integers(1, 60)] * 3)


class Grid:
    """An array (z, y, x), and the boxes that were read of it."""

    def __init__(self, values):
        self.values = values
        self.shape = Zyx(*values.shape)
        self.boxes = []

    def read(self, channel, box):
        assert channel == 0
        assert box == box.clipped(self.shape)
        self.boxes.append(box)
        return self.values[box.slices]


def _score(after, borders, before=None, **options):
    grids = Grid(after if before is None else before), Grid(after)
    return seam_score(*grids, 0, borders, **options)


def _every(step, shape):
    return block_borders(Zyx(*shape), Zyx(step, step, step), Zyx(step, step, step))


def _noise(shape, seed=3):
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def _slope(shape, steps):
    """Return an image that rises by 1 from voxel to voxel, and at some positions by more.

    `steps` has for each axis what is added, by position.
    """
    image = np.zeros(shape)
    for axis, added in enumerate(steps):
        rise = np.ones(shape[axis])
        for position, height in added.items():
            rise[position] += height
        image += np.expand_dims(np.cumsum(rise), [a for a in range(3) if a != axis])
    return image


@given(shape=lengths, region=lengths, block=lengths)
def test_borders_of_blocks_are_where_blocks_begin(shape, region, block):
    found = [set(), set(), set()]
    for part in RegionGrid((1, *shape), Zyx(*region)):
        for box in blocks(part.box, Zyx(*block)):
            for seen, start in zip(found, box.start, strict=True):
                seen.add(start)
    borders = block_borders(Zyx(*shape), Zyx(*region), Zyx(*block))
    assert [b.tolist() for b in borders] == [sorted(seen - {0}) for seen in found]


@given(n=st.integers(1, 200), core=st.integers(2, 50), data=st.data())
def test_borders_of_cores_are_where_one_core_more_or_less_covers_a_voxel(n, core, data):
    overlap = data.draw(st.integers(1, core - 1))
    cores, start = [], 0
    while not cores or cores[-1][-1] < n - 1:
        cores.append(range(start, min(start + core, n)))
        start += core - overlap
    covering = [[i in c for c in cores] for i in range(n)]
    changes = [i for i in range(1, n) if covering[i] != covering[i - 1]]
    borders = core_borders(Zyx(n, n, n), core, overlap)
    assert all(b.tolist() == changes for b in borders)


def test_cores_of_the_publication():
    borders = core_borders(Zyx(120, 300, 301))
    assert [b.tolist() for b in borders] == [
        [],
        [90, 120, 180, 210],
        [90, 120, 180, 210, 270, 300],
    ]


@pytest.mark.parametrize("stride", [1, 4])
def test_without_seams_the_score_is_1_within_its_error(stride):
    score = _score(
        _noise((150, 160, 170)),
        _every(30, (150, 160, 170)),
        before=_noise((150, 160, 170), seed=4),
        stride=stride,
    )
    for seam in (score.z, score.y, score.x):
        assert seam.cubes >= 8
        for figure, expected in ((seam.before, 1), (seam.after, 1), (seam.excess, 0)):
            assert 0 < figure.error < 0.02
            assert abs(figure.value - expected) < 4 * figure.error


def test_the_error_is_the_scatter_of_other_samples():
    voxels = _noise((150, 160, 170))
    # Cubes that differ in brightness and in their seams, so that both parts of a ratio scatter.
    voxels *= np.random.default_rng(1).uniform(0.2, 2, (1, 160, 170))
    voxels[75:] += np.random.default_rng(2).normal(0, 20, (1, 160, 170))
    borders = Borders(np.array([75]), np.array([], int), np.array([], int))
    found = []
    for part in range(30):
        rolled = np.roll(voxels, (37 * part % 160, 53 * part % 170), axis=(1, 2))
        found.append(_score(rolled, borders).z.after)
    scatter = np.std([figure.value for figure in found])
    assert np.median([figure.error for figure in found]) == pytest.approx(scatter, rel=0.7)


def test_a_step_at_the_borders_gives_the_score_that_it_must():
    shape = (130, 120, 110)
    borders = _every(40, shape)
    heights = (0.5, 3.0, 7.0)
    after = _slope(
        shape,
        [dict.fromkeys(b.tolist(), h) for b, h in zip(borders, heights, strict=True)],
    )
    score = _score(after, borders, before=_slope(shape, ({}, {}, {})))
    for seam, height in zip((score.z, score.y, score.x), heights, strict=True):
        assert seam.before.value == pytest.approx(1)
        assert seam.after.value == pytest.approx(1 + height)
        assert seam.excess.value == pytest.approx(height)
        assert seam.excess.error == pytest.approx(0, abs=1e-9)
    axis, worst = score.worst
    assert (axis, worst) == ("x", score.x)
    assert worst.is_seam
    assert str(score).startswith("there are some; along x, where they differ most")
    assert "8.000 ± 0.000 of those elsewhere" in str(score)


def test_a_step_elsewhere_is_none_at_the_borders():
    shape = (140, 100, 60)
    borders = _every(40, shape)
    after = _slope(shape, [{p + 5: 11.0 for p in b.tolist()} for b in borders])
    score = _score(after, borders)
    steps = 2 * REACH - 2
    for seam in (score.z, score.y, score.x):
        assert seam.after.value == pytest.approx(steps / (steps + 11))


def test_other_borders_in_a_cube_count_neither_way():
    """Blocks of 7, so that cubes hold several borders, of which only one in the middle is high."""
    shape = (70, 40, 40)
    borders = _every(7, shape)
    after = _slope(shape, (dict.fromkeys(borders.z.tolist(), 5.0), {}, {}))
    assert _score(after, borders).z.after.value == pytest.approx(6)
    half = _slope(shape, (dict.fromkeys(borders.z[::2].tolist(), 5.0), {}, {}))
    positions = len(borders.z)
    expected = (positions + 5 * -(-positions // 2)) / positions
    assert _score(half, borders).z.after.value == pytest.approx(expected)


def test_a_pattern_of_the_stride_is_no_seam():
    shape = (128, 128, 128)
    borders = _every(32, shape)
    after = _slope(shape, [dict.fromkeys(range(0, 128, 4), 2.0)] * 3)
    assert _score(after, borders).z.after.value > 1.5
    assert _score(after, borders, stride=4).z.after.value == pytest.approx(1)


def test_borders_of_unsigned_volumes_may_step_down():
    after = np.full((40, 40, 40), 9, np.uint8)
    after[:, :, ::2] += 1
    after[20:] -= 4
    after[25:] -= 2
    score = _score(after, _every(20, after.shape))
    assert score.z.after.value == pytest.approx(4 / (2 / 22))


@pytest.mark.parametrize("shape", [(1, 30, 30), (2, 2, 2), (20, 5, 200)])
def test_thin_volumes(shape):
    after = _slope(shape, ({}, {}, {}))
    score = _score(after, _every(4, shape))
    for n, seam in zip(shape, (score.z, score.y, score.x), strict=True):
        assert (seam is None) == (n <= 4)
        if seam is not None:
            assert seam.after.value == pytest.approx(1)


def test_one_cube_has_no_error():
    score = _score(_slope((20, 5, 5), ({}, {}, {})), _every(10, (20, 5, 5)))
    assert score.z.cubes == 1
    assert score.z.excess.error is None


def test_what_cannot_be_measured_is_none():
    borders = _every(20, (50, 50, 50))
    flat = np.full((50, 50, 50), 7, np.uint16)
    nothing = _score(flat, borders)
    assert (nothing.z, nothing.y, nothing.x, nothing.worst) == (None,) * 4
    assert "no borders" in str(nothing)
    assert _score(_noise(flat.shape), _every(50, flat.shape)).worst is None
    assert _score(np.full(flat.shape, math.nan), borders).worst is None
    # Blocks of one voxel leave no step that is not at a border.
    assert _score(_noise(flat.shape), _every(1, flat.shape)).worst is None


def test_empty_background_contributes_nothing():
    shape = (60, 512, 512)
    before = np.zeros(shape)
    before[:, 200:260, 300:360] = _slope((60, 60, 60), ({}, {}, {}))
    after = before.copy()
    after[30:, 200:260, 300:360] += 3
    score = _score(after, _every(30, shape), before=before)
    assert score.z.before.value == pytest.approx(1)
    assert score.z.after.value == pytest.approx(4)


def test_places_with_signal_are_looked_for_in_the_input_only():
    shape = (24, 1024, 1024)
    borders = Borders(np.array([12]), np.array([], int), np.array([], int))
    rng = np.random.default_rng(0)
    lit = rng.random((16, 16)) < 0.2
    bright = np.kron(lit, np.ones((64, 64))).astype(np.float32)
    before = _noise(shape) * bright
    places = []
    for after in (before, np.zeros(shape), _noise(shape, 8) * (1 - bright)):
        grid = Grid(after)
        seam_score(Grid(before), grid, 0, borders)
        places.append(grid.boxes)
    assert len(places[0]) == CUBES
    assert places[0] == places[1] == places[2]
    seen = sum(bool(before[box.slices].any()) for box in places[0])
    assert seen == lit.sum() < CUBES


def test_volumes_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="volume that restore made of it"):
        _score(np.zeros((40, 40, 40)), _every(20, (40, 40, 40)), before=np.zeros((40, 60, 40)))


def test_borders_outside_are_refused():
    with pytest.raises(InputError, match=r"axis z: borders from 20 to 40 .* of a volume of 40"):
        _score(np.zeros((40, 40, 40)), _every(20, (41, 40, 40)))


class Endless:
    """A volume of terabytes that is made up when it is read, and the boxes that were."""

    shape = Zyx(20_000, 60_000, 80_000)

    def __init__(self):
        self.boxes = []

    @property
    def voxels(self):
        return sum(box.voxels for box in self.boxes)

    def read(self, channel, box):
        self.boxes.append(box)
        return np.random.default_rng(box.start).random(box.shape, np.float32)


def test_the_same_seed_looks_at_the_same_places():
    borders = block_borders(Endless.shape, Zyx(512, 512, 512), Zyx(512, 512, 512))
    grids = [Endless() for _ in range(3)]
    scores = [
        seam_score(Endless(), grid, 0, borders, seed=seed)
        for grid, seed in zip(grids, (0, 0, 1), strict=True)
    ]
    assert scores[0] == scores[1] != scores[2]
    assert grids[0].boxes == grids[1].boxes != grids[2].boxes
    assert type(scores[0]).model_validate_json(scores[0].model_dump_json()) == scores[0]


def test_of_a_huge_volume_a_sample_is_read_that_is_spread_over_it():
    before, after = Endless(), Endless()
    borders = block_borders(after.shape, Zyx(512, 512, 512), Zyx(171, 128, 128))
    score = seam_score(before, after, 0, borders)
    cubes = 3 * CUBES
    assert (score.z.cubes, score.y.cubes, score.x.cubes) == (CUBES,) * 3
    assert after.voxels <= cubes * 2 * REACH * WIDTH**2
    assert before.voxels <= DRAWS * after.voxels
    assert score.worst[1].after.value == pytest.approx(1, abs=0.02)


def test_borders_of_regions_and_of_blocks_are_both_in_the_sample():
    """Every second border is one of regions, and there are twice as many borders as are drawn."""
    shape = (2580, 30, 30)
    borders = block_borders(Zyx(*shape), Zyx(40, 30, 30), Zyx(20, 30, 30))
    grid = Grid(_noise(shape))
    assert len(borders.z) == 2 * CUBES
    seam_score(grid, grid, 0, borders)
    middles = {box.start.z + REACH for box in grid.boxes}
    of_regions = sum(p % 40 == 0 for p in middles)
    assert len(middles) == CUBES
    assert 0.25 * CUBES < of_regions < 0.75 * CUBES


def test_volumes_are_seen_on_the_isotropic_grid(make_store):
    voxels = _noise((30, 70, 80))
    before = IsotropicView(make_store(voxels, voxel_size=(3.0, 1.0, 1.0)))
    restored = before.read(0, Box.whole(before.shape))
    after = IsotropicView(make_store(restored))
    score = seam_score(before, after, 0, _every(32, before.shape))
    assert score.worst[1].excess.value == 0
    restored[32:] += 100
    score = seam_score(before, IsotropicView(make_store(restored)), 0, _every(32, before.shape))
    assert score.worst[0] == "z"
    assert score.worst[1].excess.value > 10
