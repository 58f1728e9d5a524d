"""What the trust map is made of: planes among voxels, scores of cells, the fit of intensities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.blur.noise import NoiseModel
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.trust.evidence import CellSums, Terms, judge
from isosr_pipeline.trust.matching import Pairs, match
from isosr_pipeline.trust.planes import MARGIN, Planes, SampledPlanes, sampling
from isosr_pipeline.trust.regions import peaks

CELL = Zyx(4, 8, 8)


@given(
    step=st.floats(0.3, 9),
    count=st.integers(1, 60),
    offset=st.integers(0, 20),
    cut=st.integers(1, 12),
)
def test_each_plane_lies_in_one_cell(step, count, offset, cut):
    length = max(1, int((count - 1) * step + 1e-3) + 1 - offset)
    planes = Planes(step, offset, length, count)
    found = [k for z in range(0, length, cut) for k in planes.within(z, min(z + cut, length))]
    assert found == sorted(set(found))
    places = np.arange(count) * step - offset
    assert len(found) == ((places >= -1e-3) & (places < length - 1 + 1e-3)).sum() or length == 1
    if cut >= step and length > 1:
        for z in range(0, length - cut, cut):
            assert planes.within(z, z + cut)


def test_places_between_voxels_are_sampled_without_blurring():
    z = np.arange(-MARGIN, 20 + MARGIN)
    for values, exact in ((z.astype(float), 1e-5), (0.3 * z**2 - z, 1e-4), (np.sin(z / 3), 2e-3)):
        places = np.array([0.0, 0.25, 7.0, 8.5, 19.0])
        found = sampling(places, -MARGIN, 20 + MARGIN) @ values
        truth = np.interp(places, np.arange(-2, 22, 0.001), _fine(values, z))
        assert found == pytest.approx(truth, abs=exact)


def _fine(values, z):
    from scipy.interpolate import CubicSpline

    return CubicSpline(z, values)(np.arange(-2, 22, 0.001))


def test_planes_that_are_sampled_go_on_beyond_a_part():
    class Ramp:
        def read(self, _channel, box):
            return np.broadcast_to(
                np.arange(box.start.z, box.stop.z, dtype=np.uint16)[:, None, None], box.shape
            )

    planes = Planes(step=2.5, offset=4, length=9, count=8)
    shape, size = (1, 8, 3, 2), (2.5, 1.0, 1.0)
    found = SampledPlanes(Ramp(), None, planes, shape, size).read(0, Box.whole((8, 3, 2)))
    assert found[:, 0, 0] == pytest.approx([0, 0, 1, 3.5, 6, 8, 8, 8])


@pytest.fixture
def terms():
    return Terms(1.0, 0.0, NoiseModel(2.0, 10.0), 20.0, 40.0, 1e-3, 0.0)


def scored(measured, explained, terms, beyond=0.0):
    sums = CellSums(np.arange(len(measured)) // CELL.z, len(measured) // CELL.z, CELL)
    share = np.full(measured.shape, beyond, np.float32)
    return judge(measured, explained, share, terms, sums)


def drawn(terms, level=100.0, seed=0):
    """Photons of a gain of 2, and the noise of reading them."""
    rng = np.random.default_rng(seed)
    explained = np.full((40, 160, 160), level, np.float32)
    noisy = 2 * rng.poisson(explained / 2) + rng.normal(0, np.sqrt(10), explained.shape)
    return noisy.astype(np.float32), explained


@pytest.mark.parametrize("level", [2.0, 30.0, 1000.0])
def test_noise_is_not_flagged(terms, level):
    low = Terms(1.0, 0.0, terms.noise, 0.0, 40.0, 1e-3, 0.0)
    measured, explained = drawn(terms, level)
    found = scored(measured, explained, low)
    assert found.score.size == 4000
    # The larger of two figures with a standard deviation of 1 and of less.
    assert 0.9 < found.score.std() < 1.4
    assert np.abs(found.score).max() < 5
    assert found.signal.all() == (level > 40)


def test_light_and_its_place_are_both_judged(terms):
    measured, explained = drawn(terms)
    cell = (slice(0, 4), slice(8, 16), slice(8, 16))
    more = explained.copy()
    more[cell] += 8
    # 8 more in each of 256 voxels of a variance of 210.
    assert scored(measured, more, terms).score[0, 1, 1] == pytest.approx(8 * 16 / 14.5, abs=2.5)
    assert scored(measured, 2 * explained - more, terms).score[0, 1, 1] < -5
    moved = explained.copy()
    moved[cell] += 60 * np.sin(np.arange(8) * np.pi / 2 + 0.5).astype(np.float32)
    found = scored(measured, moved, terms).score
    assert np.abs(found[0, 1, 1]) > 10
    assert np.abs(np.delete(found.ravel(), 21)).max() < 5


def test_tolerance_and_the_border_leave_room(terms):
    measured, explained = drawn(terms)
    brighter = 1.08 * explained
    strict = scored(measured, brighter, terms).score
    tolerant = Terms(*[*vars(terms).values()][:-1], 0.05)
    assert np.median(strict) > 7
    # 8 light of 88, of which 4.4 may be too much.
    assert np.median(scored(measured, brighter, tolerant).score) == pytest.approx(1.8, abs=0.3)
    assert np.median(scored(measured, 1.08 * explained, terms, beyond=0.04).score) < 2
    beyond = scored(measured, 1.3 * explained, terms, beyond=0.1)
    assert not beyond.judged.any()
    assert (beyond.score == 0).all()


def test_cells_without_planes_have_no_score(terms):
    measured, explained = drawn(terms)
    sums = CellSums(np.full(4, 2), 3, CELL)
    found = judge(measured[:4], explained[:4], np.zeros_like(measured[:4]), terms, sums)
    assert not found.judged[:2].any()
    assert (found.score[:2] == 0).all()
    assert found.judged[2].all()


def test_the_fit_does_not_follow_what_was_painted_in():
    rng = np.random.default_rng(1)
    light = 30 + 400 * rng.random(60_000) ** 6
    reblurred = (light - 12) / 1.4
    painted = rng.random(60_000) < 0.1
    measured = rng.poisson(light)
    reblurred[painted] += 300 * rng.random(painted.sum())
    pairs = Pairs(measured.astype(np.float32), reblurred.astype(np.float32))
    found = match(pairs, NoiseModel(1.0, 0.0), 0.05, is_integer=True)
    assert found.gain == pytest.approx(1.4, rel=0.01)
    assert found.offset == pytest.approx(12, abs=0.5)
    assert found.background == pytest.approx(30, abs=1)
    assert found.background < found.bright < 200


def test_where_nothing_stands_out_the_gain_is_one():
    rng = np.random.default_rng(1)
    measured = rng.poisson(30, 5000).astype(np.float32)
    reblurred = (10 + 0.01 * rng.random(5000)).astype(np.float32)
    found = match(Pairs(measured, reblurred), NoiseModel(1.0, 0.0), 0.0, is_integer=True)
    assert found.gain == 1
    assert found.offset == pytest.approx(20, abs=0.3)


def test_peaks_are_the_worst_of_their_neighbourhood():
    scores = np.zeros((9, 9, 9), np.float32)
    scores[4, 4, 4], scores[4, 4, 5], scores[1, 1, 1], scores[8, 8, 8] = 9, 7, -12, 6
    found = peaks(scores, 5.0, 2, Zyx(10, 0, 0))
    assert [tuple(place) for place in found] == [(-12, 11, 1, 1), (9, 14, 4, 4)]
