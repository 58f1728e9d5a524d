"""Spots before and after restoration: Gaussians of known width."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from isosr_pipeline.blur.beads import typical_spot
from isosr_pipeline.blur.spots import fit_section
from isosr_pipeline.evidence.spots import (
    MOST_SPOTS,
    FindBrightest,
    FoundSpots,
    MeasuredPlanes,
    MeasureSpots,
    compare_spots,
)
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.measuring import ReopenedVolume
from isosr_pipeline.widths import FWHM_PER_SIGMA

SHAPE, STEP, SIZE = Zyx(110, 96, 100), 2.0, 0.5
"""The isotropic grid, lateral voxels from plane to plane, and µm of a lateral voxel."""
FWHM = {"before": (12.0, 4.0, 4.4), "after": (5.0, 4.2, 4.6)}
CENTRES = list(itertools.product((32.3, 77.8), (20.6, 47.2, 75.1), (22.4, 50.9, 78.3)))


def spots(planes, fwhm, centres, heights=None):
    volume = np.full((len(planes), SHAPE.y, SHAPE.x), 100.0)
    for number, (z, y, x) in enumerate(centres):
        profiles = [
            np.exp(-0.5 * ((grid - centre) * FWHM_PER_SIGMA / width) ** 2)
            for grid, centre, width in zip(
                (planes, np.arange(SHAPE.y), np.arange(SHAPE.x)), (z, y, x), fwhm, strict=True
            )
        ]
        height = 900 if heights is None else heights[number]
        volume += height * np.einsum("i,j,k->ijk", *profiles)
    return volume


def noisy(volume, seed):
    return np.random.default_rng(seed).poisson(volume).astype(np.uint16)


def volumes(make_store, centres=CENTRES, moved=(0.0, 0.0, 0.0), **options):
    planes = np.arange(0, SHAPE.z, STEP)
    before = make_store(
        noisy(spots(planes, FWHM["before"], centres, **options), 0),
        voxel_size=(STEP * SIZE, SIZE, SIZE),
    )
    depth = int(planes[-1]) + 1
    shifted = [tuple(c + m for c, m in zip(centre, moved, strict=True)) for centre in centres]
    after = make_store(
        noisy(spots(np.arange(depth), FWHM["after"], shifted, **options), 1),
        voxel_size=(SIZE, SIZE, SIZE),
    )
    parts = []
    for volume in (before, after):
        view = IsotropicView(ReopenedVolume.of(volume))
        parts.append(Part(view, Box.whole(view.shape), [0]))
    return parts


def measured(before, after, boxes=None):
    boxes = boxes or [Box.whole(before.shape)]
    planes = MeasuredPlanes(before, 0)
    brightest = sum((FindBrightest(planes, "before")(box) for box in boxes), ())
    height, fwhm = typical_spot(planes, 0, brightest, "before")
    job = MeasureSpots(planes, after, SIZE, height, tuple(fwhm), 100)
    return compare_spots(sum((job(box) for box in boxes), FoundSpots()), seed=0)


def test_widths_are_those_of_the_gaussians_within_two_percent(make_store):
    found = measured(*volumes(make_store, moved=(0.0, 0.6, -0.8)))
    assert found.count == len(CENTRES)
    assert found.left_out == {}
    for index, axis in enumerate("zyx"):
        for when in ("before", "after"):
            width = FWHM[when][index] * SIZE
            told = getattr(found.fwhm[axis], f"{when}_um")
            assert told.median == pytest.approx(width, rel=0.02)
            assert told.count == len(CENTRES)
            for section in found.section_fwhm.values():
                if axis in section:
                    told = getattr(section[axis], f"{when}_um")
                    assert told.median == pytest.approx(width, rel=0.03)
    assert found.axial_lateral_before.median == pytest.approx(12 / 4.2, rel=0.02)
    assert found.axial_lateral_after.median == pytest.approx(5 / 4.4, rel=0.02)
    assert found.lateral_mismatch_um.mean == pytest.approx(0.2 * SIZE, abs=0.03 * SIZE)
    assert found.lateral_shift_um.median == pytest.approx(1.0 * SIZE, rel=0.1)
    centres = np.array([pair.centre_um for pair in found.pairs]) / SIZE
    apart = np.abs(centres[:, None] - np.array(CENTRES)).max(axis=2)
    assert apart.min(axis=0).max() < 0.3


def test_spots_of_overlapping_boxes_and_of_a_part_count_once(make_store):
    before, after = volumes(make_store)
    parts = [Part(p.view, Box(Zyx(4, 2, 4), Zyx(106, 90, 95)), [0]) for p in (before, after)]
    boxes = [
        Box(Zyx(0, 0, 0), Zyx(60, 88, 91)),
        Box(Zyx(50, 0, 0), Zyx(98, 88, 60)),
        Box(Zyx(50, 0, 30), Zyx(98, 88, 91)),
    ]
    found = measured(*parts, boxes)
    assert found.count == len(CENTRES) - found.left_out.get("at the border", 0)
    assert found.count >= 9
    assert found.fwhm["z"].before_um.median == pytest.approx(12 * SIZE, rel=0.03)
    offset = np.array([4, 2, 4])
    for pair in found.pairs:
        apart = np.abs(np.array(CENTRES) - offset - np.array(pair.centre_um) / SIZE).max(axis=1)
        assert apart.min() < 0.3


def test_spots_that_restoration_loses_or_moves_are_left_out_and_named(make_store):
    few = CENTRES[:4]
    before, after = volumes(make_store, few)
    _, elsewhere = volumes(make_store, few, moved=(0.0, 6.0, 0.0))
    assert measured(before, elsewhere).left_out == {"elsewhere after restoration": len(few)}
    empty = make_store(noisy(np.full(after.shape, 100.0), 3), voxel_size=(SIZE,) * 3)
    nothing = Part(IsotropicView(ReopenedVolume.of(empty)), Box.whole(after.shape), [0])
    found = measured(before, nothing)
    assert found.count == 0
    assert sum(found.left_out.values()) == len(few)
    assert found.fwhm["z"].after_um is None


def test_no_more_spots_are_kept_than_a_report_holds(make_store):
    before, after = volumes(make_store, CENTRES[:2])
    planes = MeasuredPlanes(before, 0)
    box = Box.whole(before.shape)
    (peak,) = FindBrightest(planes, "before")(box)
    height, fwhm = typical_spot(planes, 0, [peak], "before")
    one = MeasureSpots(planes, after, SIZE, height, tuple(fwhm), 1)(box)
    assert len(one.spots) == 1
    spot, pair = one.spots[0]
    many = FoundSpots([(_moved(spot, z), pair) for z in range(MOST_SPOTS + 9)])
    found = compare_spots(many, seed=0)
    assert (found.count, len(found.pairs)) == (MOST_SPOTS, MOST_SPOTS)
    assert found.left_out == {f"beyond {MOST_SPOTS}": 9}


def _moved(spot, z):
    return type(spot)(spot.amplitude, spot.background, (z, 0.0, 0.0), spot.sigma, spot.explained)


def test_a_section_without_a_spot_has_no_widths():
    assert fit_section(np.full((9, 9), 3.0)) is None
    rows, columns = np.mgrid[:21, :31]
    spot = np.exp(-0.5 * (((rows - 9.3) / 2) ** 2 + ((columns - 16.2) / 3) ** 2))
    widths = fit_section(7 + 5 * spot)
    assert widths == pytest.approx((2 * FWHM_PER_SIGMA, 3 * FWHM_PER_SIGMA), rel=1e-4)


def test_spots_of_a_thin_volume_are_measured(make_store):
    """A Gaussian is fitted to one and a half widths on each side: no more planes are needed."""
    planes, fwhm = 12, (6.2, 4.0, 4.0)
    centres = list(itertools.product((10.6, 11.9), (30, 66), (32.2, 68.3)))[::3]
    parts = []
    for step, along, width in (
        (STEP, np.arange(planes) * STEP, fwhm),
        (1.0, np.arange(2 * planes - 1), (4.2, 4.0, 4.0)),
    ):
        voxels = noisy(spots(along, width, centres), 0)
        volume = make_store(voxels, voxel_size=(step * SIZE, SIZE, SIZE))
        view = IsotropicView(ReopenedVolume.of(volume))
        parts.append(Part(view, Box.whole(view.shape), [0]))
    found = measured(*parts)
    assert (found.count, found.left_out) == (len(centres), {})
    assert found.fwhm["z"].before_um.median == pytest.approx(fwhm[0] * SIZE, rel=0.04)
