"""Warnings: none of a perfect result, and each of what it is about."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
from scipy import ndimage

from isosr_pipeline.evidence.distribution import Distribution
from isosr_pipeline.evidence.results import RestoredCounts
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.seams import AxisSeam, Figure, SeamScore
from isosr_pipeline.settings import ConvertSettings, EvaluateSettings
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.tiffs import write_tiff

PERFECT = {
    "neurites": Acquisition(),
    "cells": Acquisition(photons=1000, axial_fwhm_um=5.0),
    "beads": Acquisition(photons=500, background=1000),
}


def truth_of(make_store, cluster, scene, acquisition, **settings):
    """Paths of a simulated volume and of its truth, which no restoration can excel."""
    made = simulate(scene, (72, 80, 80), acquisition, seed=5)
    paths = [
        make_store(voxels, voxel_size=size, chunk=(64,) * 3, shard=(64,) * 3).path
        for voxels, size in (
            (made.image, made.image_voxel_size),
            (made.truth, made.truth_voxel_size),
        )
    ]
    return evaluate(*paths, EvaluateSettings(**settings), cluster)


@pytest.mark.parametrize("scene", PERFECT)
def test_the_truth_gives_no_warning(make_store, cluster, scene):
    found = truth_of(make_store, cluster, scene, PERFECT[scene])
    assert cautions(found) == []


@pytest.fixture(scope="module")
def good(client, tmp_path_factory):
    """A perfect result, with a reference and spots, of which nothing is to be warned."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(2)
    middles = np.array(list(itertools.product((17, 47), (18, 48, 78), (18, 48, 78))))
    truth = np.zeros((65, 96, 96))
    truth[tuple((middles + rng.integers(-4, 5, middles.shape)).T)] = rng.uniform(0.8, 1.2, 18)
    truth = 10 + 1e5 * ndimage.gaussian_filter(truth, 1.5)
    image = rng.poisson(ndimage.gaussian_filter1d(truth, 2.5, axis=0)[::2])
    for name, voxels, size in (("image", image, (1.0, 0.5, 0.5)), ("truth", truth, (0.5,) * 3)):
        write_tiff(folder / f"{name}.tif", voxels.astype(np.uint16), size)
        source, store = folder / f"{name}.tif", folder / f"{name}.zarr"
        convert(source, store, ConvertSettings(), lambda: nullcontext(client))
    settings = EvaluateSettings(reference=folder / "truth.tif", rois=6, spots=True)
    store, restored = folder / "image.zarr", folder / "truth.zarr"
    return evaluate(store, restored, settings, lambda: nullcontext(client))


def but(found, **parts):
    """The same evaluation with other figures: ``after__sharpness__y_per_um=2``."""
    for path, value in parts.items():
        name, _, rest = path.partition("__")
        inner = getattr(found, name) if not isinstance(found, dict) else found[name]
        if rest:
            value = but(inner, **{rest: value})
        if isinstance(found, dict):
            found = {**found, name: value}
        else:
            found = found.model_copy(update={name: value})
    return found


def counts(**found):
    return RestoredCounts(**{"voxels": 10**6, "clipped": 0, "saturated": 0, "passed": 0, **found})


def seams(excess):
    figure = Figure(value=1.0, error=0.001)
    after = Figure(value=1.0 + excess, error=0.001)
    seam = AxisSeam(before=figure, after=after, excess=Figure(value=excess, error=0.001), cubes=9)
    return SeamScore(z=seam, y=None, x=None)


WARNINGS = {
    "too little signal": {"after__axial_lateral_ratio": None},
    "did not rise": {"after__axial_lateral_ratio": 0.1},
    "1 is isotropic": {"after__axial_lateral_ratio": 1.3},
    "finer than 2 µm along y and x": {
        "after__correlation__z__resolution_um": 1.0,
        "after__correlation__y__resolution_um": 2.0,
        "after__correlation__x__resolution_um": 2.5,
    },
    "Lateral planes changed by -5": {
        "after__sharpness__y_per_um": 0.2,
        "after__sharpness__x_per_um": 0.2,
        "before__sharpness__y_per_um": 0.4,
        "before__sharpness__x_per_um": 0.4,
    },
    "in lateral width": {"spots__lateral_mismatch_um": Distribution.of([0.5, 0.6])},
    "Mean intensity changed by up to -30% of the mean": {"drift__largest_relative_change": -0.3},
    "1.00% of the restored voxels were cut": {"counts": counts(clipped=10_000)},
    "2.0% of the voxels lay outside": {"counts": counts(saturated=20_000)},
    "0.50% of the input's voxels are saturated": {"before__extremes__saturated_share": 0.005},
    "PSNR against the reference fell": {"after__against_reference__psnr_db": 1.0},
    "Only 20% of the sections got better": {"rois__improved_share": 0.2},
    "restore with a larger halo": {"seams": seams(0.5)},
    "may be of background": {"sampling__how": "even"},
}


def test_a_perfect_result_with_a_reference_and_spots_gives_no_warning(good):
    assert good.spots.count >= 12
    assert good.rois is not None
    assert good.drift is not None
    assert cautions(good) == []
    assert cautions(but(good, counts=counts(), seams=seams(0.0))) == []


@pytest.mark.parametrize("text", WARNINGS)
def test_each_warning_is_of_what_it_names_and_of_nothing_else(good, text):
    (line,) = cautions(but(good, **WARNINGS[text]))
    assert text in line


def test_a_lost_slab_is_warned_of(make_store, cluster):
    """Below a camera's offset that is many times the signal."""
    acquisition = Acquisition(photons=200, background=1000)
    made = simulate("cells", (72, 64, 64), acquisition, seed=1)
    lost = made.truth.copy()
    lost[36:] = 1000
    store, restored = (make_store(v, voxel_size=(0.5,) * 3).path for v in (made.image, lost))
    found = evaluate(store, restored, EvaluateSettings(), cluster)
    assert [line for line in cautions(found) if "slabs along z" in line]
    assert found.drift.largest_relative_change < -0.3
