"""Regions of interest, references of another view, and slabs."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage, signal
from skimage.metrics import structural_similarity

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.cubes import MOST_CUBES, choose_cubes
from isosr_pipeline.evidence.distribution import Distribution
from isosr_pipeline.evidence.drift import CoarsePart, slab_borders
from isosr_pipeline.evidence.places import Places
from isosr_pipeline.evidence.reference import Reference
from isosr_pipeline.evidence.rois import (
    Fitted,
    MeasureRegion,
    draw_regions,
    given_regions,
    plane_of,
    section_psnr,
)
from isosr_pipeline.evidence.similarity import ms_ssim
from isosr_pipeline.evidence.summing_up import drift_of, rois_of
from isosr_pipeline.evidence.turned import TurnedImage
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.measuring import ReopenedVolume
from isosr_pipeline.settings import EvaluateSettings


class Array:
    """An array (z, y, x) as an image, or as a grid."""

    def __init__(self, values, channels=1):
        self.values = values
        self.path = "array"
        self.shape = (channels, *values.shape) if channels else Zyx(*values.shape)

    def read(self, channel, box):
        assert channel == 0
        return self.values[box.slices]


def textured(shape, seed=0):
    rough = np.random.default_rng(seed).random(shape)
    return 100 * ndimage.gaussian_filter(rough, 2) + 20 * rough


@pytest.fixture(scope="module")
def sections():
    truth = textured((200, 190))
    return truth, ndimage.gaussian_filter(truth, 1.5) + textured((200, 190), 1) / 20


def _convolved(values):
    x = np.arange(-5, 6)
    window = np.exp(-0.5 * (x / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    return signal.convolve2d(values, window, mode="valid")


def _published(first, second, data_range, weights):
    """Wang et al. 2003, by sums over windows that lie in the section."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = 1.0
    for scale, weight in enumerate(weights):
        a, b = _convolved(first), _convolved(second)
        variances = _convolved(first**2) - a**2 + _convolved(second**2) - b**2
        contrast = (2 * (_convolved(first * second) - a * b) + c2) / (variances + c2)
        if scale == len(weights) - 1:
            contrast = contrast * (2 * a * b + c1) / (a**2 + b**2 + c1)
        found *= contrast.mean() ** weight
        first, second = (
            sum(v[i : v.shape[0] // 2 * 2 : 2, j : v.shape[1] // 2 * 2 : 2] for i, j in OFFSETS) / 4
            for v in (first, second)
        )
    return found


OFFSETS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_ms_ssim_is_as_published(sections):
    truth, image = sections
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    expected = _published(truth, image, 90.0, weights / weights.sum())
    assert ms_ssim(truth, image, 90.0) == pytest.approx(expected, rel=1e-6)
    assert 0.1 < expected < 0.95
    small = (slice(0, 60), slice(0, 50))
    expected = _published(truth[small], image[small], 90.0, weights[:3] / weights[:3].sum())
    assert ms_ssim(truth[small], image[small], 90.0) == pytest.approx(expected, rel=1e-6)
    assert ms_ssim(truth, truth, 90.0) == pytest.approx(1)


def test_ms_ssim_of_one_scale_is_ssim_and_of_less_than_a_window_none(sections):
    truth, image = (section[:20, :21] for section in sections)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(truth, image, data_range=90.0, **options)
    assert ms_ssim(truth, image, 90.0) == pytest.approx(expected, rel=1e-6)
    assert ms_ssim(truth[:10], image[:10], 90.0) is None


def test_psnr_of_a_section_is_the_papers(sections):
    truth, image = sections
    expected = 10 * np.log10(truth.size * truth.max() ** 2 / ((truth - image) ** 2).sum())
    assert section_psnr(truth, image) == pytest.approx(expected)
    assert section_psnr(truth, truth) == math.inf
    assert section_psnr(np.zeros((9, 9)), image[:9, :9]) == -math.inf


def test_regions_are_compared_after_the_fit_of_each_volume():
    truth = textured((20, 30, 40))
    before, after = truth + 5 * textured((20, 30, 40), 1), 0.5 * truth + 3
    volumes = (Fitted(Array(before), 0.8, 2.0), Fitted(Array(after), 2.0, -6.0))
    job = pickle.loads(pickle.dumps(MeasureRegion(Reference(Array(truth), 0), volumes, 0, 90.0)))  # noqa: S301
    boxes = [
        Box(Zyx(5, 0, 0), Zyx(6, 30, 40)),
        Box(Zyx(0, 7, 3), Zyx(20, 8, 33)),
        Box(Zyx(2, 4, 9), Zyx(18, 30, 10)),
    ]
    found = rois_of(sum((job(box) for box in boxes), ()), "given")
    assert [one.plane for one in found.regions] == ["xy", "xz", "yz"]
    for box, one in zip(boxes, found.regions, strict=True):
        part = truth[box.slices]
        error = ((part - (0.8 * before[box.slices] + 2)) ** 2).sum()
        assert (one.start, one.shape) == (box.start, box.shape)
        assert one.psnr_before_db == pytest.approx(
            10 * np.log10(part.size * part.max() ** 2 / error)
        )
        assert one.psnr_after_db > 200
        assert one.gain_db == pytest.approx(one.psnr_after_db - one.psnr_before_db)
        assert one.ms_ssim_after == pytest.approx(1)
    assert found.improved_share == 1
    assert found.psnr_before_db.count == 3


def test_distributions_leave_out_what_is_not_finite():
    found = Distribution.of([3.0, 1.0, math.inf, 2.0, None, 10.0])
    assert (found.count, found.left_out) == (4, 2)
    assert (found.minimum, found.median, found.maximum) == (1, 2.5, 10)
    assert found.deviation == pytest.approx(np.std([1, 2, 3, 10], ddof=1))
    assert Distribution.of([math.inf]) is None
    assert Distribution.model_validate_json(found.model_dump_json()) == found


@pytest.fixture
def stripe(make_store):
    """A volume of thick planes with something at large y only, and a part of it."""
    voxels = np.random.default_rng(0).integers(90, 110, (20, 100, 60), dtype=np.uint16)
    voxels[:, 70:90] += textured((20, 20, 60)).astype(np.uint16) * 40
    volume = make_store(voxels, voxel_size=(2.0, 1.0, 1.0))
    view = IsotropicView(ReopenedVolume.of(volume))
    return volume, Part(view, Box(Zyx(3, 30, 10), Zyx(39, 100, 50)), [0])


def test_places_are_drawn_where_a_part_of_the_volume_shows_something(stripe):
    volume, part = stripe
    places = Places(part, volume, 0)
    shape = Zyx(1, 10, 40)
    starts = places.draw(shape, 30, seed=1)
    assert len(set(starts)) == 30
    assert starts == Places(part, volume, 0).draw(shape, 30, seed=1)
    assert starts != places.draw(shape, 30, seed=2)
    # The stripe lies at 40 to 60 in the part.
    assert all(30 < start.y < 60 for start in starts)
    assert {start.x for start in starts} == {0}
    for start in starts:
        Box(start, Zyx(start.z + 1, start.y + 10, start.x + 40)).clipped(part.shape)


def test_regions_are_drawn_in_all_planes(stripe):
    volume, part = stripe
    regions = draw_regions(Places(part, volume, 0), 12, seed=0)
    assert regions.how == "signal"
    assert [plane_of(box) for box in regions.boxes].count("xz") == 4
    assert all(box.clipped(part.shape) == box for box in regions.boxes)
    assert {plane_of(box) for box in regions.boxes} == {"xy", "xz", "yz"}


def test_a_flat_volume_has_regions_too(make_store):
    volume = make_store(np.full((30, 30, 30), 7, np.uint8))
    part = Part(IsotropicView(ReopenedVolume.of(volume)), Box.whole((30, 30, 30)), [0])
    regions = draw_regions(Places(part, volume, 0), 6, seed=0)
    assert regions.how == "anywhere"
    assert len(regions.boxes) <= 6


def test_a_small_volume_is_covered_by_cubes_and_of_a_large_one_64_are_drawn(stripe):
    volume, part = stripe
    places = Places(part, volume, 0)
    few = choose_cubes(places, 32, seed=0)
    assert (few.how, few.edge, len(few.starts)) == ("all", 32, 2 * 3 * 2)
    many = choose_cubes(places, 17, seed=0)
    assert (many.edge, many.how, len(many.starts)) == (16, "all", 3 * 5 * 3)


def test_cubes_of_a_large_volume_hold_signal(make_store):
    voxels = np.random.default_rng(0).integers(90, 110, (64, 112, 112), dtype=np.uint16)
    voxels[:32] += textured((32, 112, 112)).astype(np.uint16) * 40
    volume = make_store(voxels)
    part = Part(IsotropicView(ReopenedVolume.of(volume)), Box.whole(voxels.shape), [0])
    cubes = choose_cubes(Places(part, volume, 0), 16, seed=0)
    assert (cubes.how, len(cubes.starts)) == ("signal", MOST_CUBES)
    assert all(box.start.z < 32 for box in cubes.boxes)
    assert all(box.clipped(part.shape) == box for box in cubes.boxes)
    assert choose_cubes(Places(part, volume, 0), 14, seed=0) is None


@pytest.mark.parametrize(
    ("roi", "message"),
    [("0:10,0:10,0:10", "figures are of sections"), ("5:6,0:90,0:10", "along y that is voxel")],
)
def test_given_regions_are_sections_of_the_volume(stripe, roi, message):
    _volume, part = stripe
    restored = IsotropicView(Array3(part.shape))
    settings = EvaluateSettings(reference="truth.tif", roi=("5:6,3:20,:", roi))
    with pytest.raises(InputError, match=message):
        given_regions(settings.roi, restored, (0.0, 0.0, 0.0))
    one = given_regions(settings.roi[:1], restored, (0.0, 0.0, 0.0))
    assert one.boxes == (Box(Zyx(5, 3, 0), Zyx(6, 20, 40)),)


class Array3:
    path = "restored.zarr"
    voxel_size = (1.0, 1.0, 1.0)

    def __init__(self, shape):
        self.shape = (1, *shape)


@pytest.mark.parametrize(
    ("order", "turned"),
    [
        ("z,y,x", lambda v: v),
        ("y,-z,x", lambda v: np.rot90(v, -1, axes=(0, 1))),
        ("-y,z,x", lambda v: np.rot90(v, 1, axes=(0, 1))),
        ("x, y, -z", lambda v: v.transpose(2, 1, 0)[:, :, ::-1]),
        ("-x,z,-y", lambda v: v.transpose(2, 0, 1)[::-1, :, ::-1]),
    ],
)
def test_a_reference_of_another_view_is_turned(order, turned):
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    settings = EvaluateSettings(reference="truth.tif", reference_axes=order)
    image = TurnedImage(Array(values), settings.reference_axes)
    expected = turned(values)
    assert image.shape == (1, *expected.shape)
    assert (image.read(0, Box.whole(expected.shape)) == expected).all()
    box = Box(Zyx(1, 0, 2), Zyx(3, 3, 4))
    assert (image.read(0, box) == expected[box.slices]).all()


@pytest.mark.parametrize("order", ["z,y", "z,y,y", "z;y;x", "z,y,--x", "1,2,3"])
def test_an_order_of_axes_names_each_once(order):
    with pytest.raises(ValidationError, match="each once"):
        EvaluateSettings(reference="truth.tif", reference_axes=order)


def test_what_is_for_a_reference_needs_one():
    for given in ({"reference_axes": "y,z,x"}, {"roi": ("0:1,:,:",)}):
        with pytest.raises(ValidationError, match="is for a reference"):
            EvaluateSettings(**given)


def test_what_was_asked_for_is_the_same_after_json():
    given = {"reference": "t.tif", "reference_axes": "y,-z,x", "roi": ("3:4,:,0:9", "0:1,:,:um")}
    settings = EvaluateSettings(**given, rois=6, spots=True, seed=2)
    assert EvaluateSettings.model_validate_json(settings.model_dump_json()) == settings


def test_slabs_have_the_mean_of_their_planes(stripe, make_store):
    volume, part = stripe
    borders = np.array([0, 12, 24, 36])
    coarse = CoarsePart.of(part, volume, 0)
    means = coarse.means(borders)
    dense = part.read(0, Box.whole(part.shape))
    expected = [dense[a:b].mean() for a, b in itertools.pairwise(borders)]
    assert means == pytest.approx(expected, rel=0.01)

    brighter = dense.copy()
    brighter[24:] *= 1.1
    other = make_store(brighter)
    whole = Part(IsotropicView(ReopenedVolume.of(other)), Box.whole(brighter.shape), [0])
    drift = drift_of(borders, coarse, CoarsePart.of(whole, other, 0), 0.5)
    assert drift.borders_um == (0, 6, 12, 18)
    assert drift.background == pytest.approx(97, abs=3)
    change = 0.1 * means[2] / (dense.mean() - drift.background)
    assert drift.relative_change[0] == pytest.approx(0, abs=0.02)
    assert drift.largest_relative_change == pytest.approx(change, rel=0.1)


@pytest.mark.parametrize(
    ("depth", "planes_per_voxel", "slabs"),
    [(20, 1.0, 1), (63, 1.0, 1), (64, 1.0, 2), (300, 1.0, 9), (300, 0.2, 3), (9999, 1.0, 64)],
)
def test_slabs_are_thicker_than_a_psf(depth, planes_per_voxel, slabs):
    borders = slab_borders(depth, planes_per_voxel)
    assert len(borders) == slabs + 1
    assert (borders[0], borders[-1]) == (0, depth)
    assert np.diff(borders).min() >= min(depth, 32)


def test_an_offset_does_not_hide_a_lost_slab(make_store):
    rough = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 25, (96, 48, 48)), 2)
    signal = 50 * np.maximum(rough - 1, 0)
    before = np.random.default_rng(0).poisson(1000 + signal).astype(np.uint16)
    after = before.copy()
    after[32:64] = 1000
    seen = []
    for voxels in (before, after):
        volume = make_store(voxels)
        part = Part(IsotropicView(ReopenedVolume.of(volume)), Box.whole(voxels.shape), [0])
        seen.append(CoarsePart.of(part, volume, 0))
    drift = drift_of(slab_borders(96, 1.0), *seen, 0.5)
    assert len(drift.before) == 3
    assert 10 < signal.mean() < 100
    assert drift.background == pytest.approx(1000, rel=0.02)
    assert drift.largest_relative_change == drift.relative_change[1] < -0.3
    assert drift.relative_change[0] == pytest.approx(0, abs=1e-9)
    assert drift.relative_change[2] == pytest.approx(0, abs=1e-9)


def test_a_part_that_was_not_acquired_is_no_background(make_store):
    voxels = np.full((40, 64, 64), 200, np.uint16)
    voxels[:, :, :20] = 0
    voxels[10:30, 30:50, 40:60] = 300
    volume = make_store(voxels)
    part = Part(IsotropicView(ReopenedVolume.of(volume)), Box.whole(voxels.shape), [0])
    assert CoarsePart.of(part, volume, 0).background > 90
    empty = make_store(np.zeros((8, 8, 8), np.uint8))
    part = Part(IsotropicView(ReopenedVolume.of(empty)), Box.whole((8, 8, 8)), [0])
    coarse = CoarsePart.of(part, empty, 0)
    assert coarse.background is None
    assert drift_of(slab_borders(8, 1.0), coarse, coarse, 1.0) is None


def test_slabs_of_a_coarse_level_are_those_of_the_volume(make_store, monkeypatch):
    voxels = np.random.default_rng(0).integers(0, 1000, (50, 140, 130), dtype=np.uint16)
    voxels += np.linspace(0, 5000, 50).astype(np.uint16)[:, None, None]
    volume = make_store(voxels)
    part = Part(IsotropicView(ReopenedVolume.of(volume)), Box.whole(voxels.shape), [0])
    monkeypatch.setattr("isosr_pipeline.foreground.MOST_VOXELS", 200_000)
    borders = np.array([0, 9, 20, 50])
    expected = [voxels[a:b].mean() for a, b in itertools.pairwise(borders)]
    assert CoarsePart.of(part, volume, 0).means(borders) == pytest.approx(expected, rel=0.02)
    monkeypatch.setattr("isosr_pipeline.foreground.MOST_VOXELS", 1)
    assert CoarsePart.of(part, volume, 0) is None


def test_as_many_regions_are_drawn_as_are_asked_for(stripe):
    volume, part = stripe
    drawn = [plane_of(box) for box in draw_regions(Places(part, volume, 0), 10, seed=0).boxes]
    assert [drawn.count(plane) for plane in ("xy", "xz", "yz")] == [4, 3, 3]
