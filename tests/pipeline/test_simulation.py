import itertools
from typing import Any

import numpy as np
import pytest
from benchmarks.bead_widths import bead_widths, lonely_beads
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.transforms import Transform
from isosr_pipeline.simulation.optics import blur_along_z, blur_by_depth, excitation
from isosr_pipeline.simulation.volume import SCENES, Acquisition, simulate
from isosr_pipeline.widths import FWHM_PER_SIGMA

SHARP = Acquisition(photons=20000, background=0)


def width_of_a_bead(fwhm_um: float) -> float:
    """FWHM in voxels of 0.5 µm of a sphere of 0.5 µm under a PSF."""
    seen = (0.5**2 / 20 + 0.5**2 / 12) * FWHM_PER_SIGMA**2
    return float(np.sqrt(fwhm_um**2 + seen) / 0.5)


def spectrum_ratio(volume: NDArray[np.uint16], size: int = 64) -> float:
    ratio = SpectrumRatio()
    for origin in itertools.product(*(range(0, n - size + 1, size // 2) for n in volume.shape)):
        ratio += SpectrumRatio.of(Transform(volume[tuple(slice(o, o + size) for o in origin)]))
    return ratio.ratio


@pytest.mark.parametrize("scene", SCENES)
def test_image_and_truth_have_the_stated_geometry_and_units(scene: str) -> None:
    made = simulate(scene, (50, 40, 60), Acquisition(z_step=4), seed=3)
    assert made.image.shape == (13, 40, 60)
    assert made.truth.shape == (50, 40, 60)
    assert made.image.dtype == made.truth.dtype == np.uint16
    assert made.image_voxel_size == (2.0, 0.5, 0.5)
    assert made.truth_voxel_size == (0.5, 0.5, 0.5)
    assert made.image.mean() == pytest.approx(made.truth.mean(), rel=0.1)


@pytest.mark.parametrize("scene", SCENES)
def test_the_same_seed_gives_the_same_volume_and_another_does_not(scene: str) -> None:
    first, again, other = (simulate(scene, (32, 48, 40), Acquisition(), s) for s in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert not np.array_equal(first.truth, other.truth)


@pytest.mark.parametrize("scene", SCENES)
def test_the_object_does_not_depend_on_the_axial_psf_or_its_sampling(scene: str) -> None:
    usual = simulate(scene, (32, 48, 40), Acquisition(), 5)
    coarse = simulate(scene, (32, 48, 40), Acquisition(axial_fwhm_um=6.0, z_step=3), 5)
    np.testing.assert_array_equal(usual.truth, coarse.truth)


@pytest.mark.parametrize("scene", SCENES)
def test_every_crop_shows_structure(scene: str) -> None:
    truth = simulate(scene, (96, 96, 96), Acquisition(), seed=0).truth
    assert truth.max() <= 210
    assert truth.min() >= 10
    for origin in itertools.product((0, 32), repeat=3):
        crop = truth[tuple(slice(o, o + 64) for o in origin)]
        assert crop.max() > 60
        assert crop.std() > 3
        structures = ndimage.label(crop > 30)[1]
        assert structures >= 3 or scene == "cells"


@pytest.mark.parametrize("scene", SCENES)
def test_borders_are_like_the_inside(scene: str) -> None:
    truths = [simulate(scene, (64, 64, 64), SHARP, seed).truth for seed in range(4)]
    faces = np.mean([t[[0, -1]].mean() + t[:, [0, -1]].mean() for t in truths])
    inside = np.mean([t[31:33].mean() + t[:, 31:33].mean() for t in truths])
    assert faces == pytest.approx(inside, rel=0.35)


@pytest.mark.parametrize("scene", SCENES)
def test_truth_is_isotropic_and_image_is_not(scene: str) -> None:
    made = simulate(scene, (128, 128, 128), Acquisition(), seed=0)
    assert spectrum_ratio(made.truth) == pytest.approx(1.0, abs=0.1)
    assert spectrum_ratio(made.truth.transpose(1, 2, 0)) == pytest.approx(1.0, abs=0.1)
    assert spectrum_ratio(made.image) < 0.5


@pytest.mark.parametrize(("lateral", "axial"), [(1.2, 3.6), (1.98, 3.91)])
def test_beads_have_the_stated_psf(lateral: float, axial: float) -> None:
    seen = SHARP.model_copy(update={"lateral_fwhm_um": lateral, "axial_fwhm_um": axial})
    made = simulate("beads", (112, 112, 112), seen, seed=2)
    narrow, wide = width_of_a_bead(lateral), width_of_a_bead(axial)
    centres = lonely_beads(made.truth, wide, narrow)
    truth = bead_widths(made.truth, centres, narrow, narrow)
    image = bead_widths(made.image, centres, wide, narrow)
    assert image.beads > 50
    assert (truth.axial, truth.lateral) == pytest.approx((narrow, narrow), rel=0.02)
    assert (image.axial, image.lateral) == pytest.approx((wide, narrow), rel=0.02)


def test_the_blur_of_beads_grows_with_depth() -> None:
    seen = SHARP.model_copy(update={"axial_fwhm_um": 2.0, "bottom_axial_fwhm_um": 5.0})
    made = simulate("beads", (128, 112, 112), seen, seed=2)
    centres = lonely_beads(made.truth, 10.0, 2.5)
    for part in (centres[:, 0] < 45, centres[:, 0] > 82):
        depth = np.median(centres[part, 0]) / 127
        wide = width_of_a_bead(2.0 + 3.0 * depth)
        found = bead_widths(made.image, centres[part], wide, 2.5)
        assert found.beads > 20
        assert found.axial == pytest.approx(wide, rel=0.04)
        assert found.lateral == pytest.approx(width_of_a_bead(1.2), rel=0.03)


def test_the_light_of_each_plane_is_spread_by_its_own_width() -> None:
    for plane, fwhm in ((0, 3.0), (20, 5.0), (40, 7.0)):
        points = np.zeros((64, 1, 1), np.float32)
        points[plane] = 1.0
        spread = blur_by_depth(points, 41, 3.0, 7.0)[:, 0, 0]
        offsets = (np.arange(64) - plane + 32) % 64 - 32
        assert spread.sum() == pytest.approx(1.0, rel=1e-6)
        assert np.sqrt((spread * offsets**2).sum()) * FWHM_PER_SIGMA == pytest.approx(
            fwhm, rel=0.01
        )
        half = offsets[spread >= 0.5 * spread.max()]
        assert np.ptp(half) == pytest.approx(fwhm, abs=1.0)


def test_a_width_that_does_not_change_with_depth_is_the_usual_blur() -> None:
    field = np.random.default_rng(0).random((40, 6, 5), dtype=np.float32)
    usual, same = blur_along_z(field, 7.0), blur_by_depth(field, 20, 7.0, 7.0)
    np.testing.assert_allclose(usual, same, atol=1e-5)


def test_shadows_run_along_x_and_take_no_more_than_their_share() -> None:
    light = excitation(np.random.default_rng(1), (80, 90, 100), 0.5, 0.4)
    assert light.max() <= 1
    assert 0.6 <= light.min() < 0.75
    along_z, along_y, along_x = (np.abs(np.diff(light, axis=axis)).mean() for axis in range(3))
    assert 5 * along_x < min(along_z, along_y)
    # Shadows begin and don't end: it only gets darker.
    assert np.diff(light, axis=2).max() <= 1e-6


def test_shadows_darken_the_image_and_not_the_truth() -> None:
    clear, shaded = (simulate("cells", (48, 64, 64), Acquisition(stripes=s), 4) for s in (0, 0.6))
    np.testing.assert_array_equal(clear.truth, shaded.truth)
    ratio = (shaded.image.mean(axis=(0, 2)) - 10) / (clear.image.mean(axis=(0, 2)) - 10)
    assert 0.4 < ratio.min() < 0.95
    assert ratio.max() <= 1.02
    again = simulate("cells", (48, 64, 64), Acquisition(stripes=0.6), 4)
    np.testing.assert_array_equal(again.image, shaded.image)


def test_planes_are_taken_after_the_blur() -> None:
    whole, some = (
        simulate("cells", (48, 40, 40), Acquisition(z_step=step, photons=20000), 6)
        for step in (1, 3)
    )
    assert some.image_voxel_size == (1.5, 0.5, 0.5)
    # The same planes but for their noise, a hundredth of what they show.
    kept = whole.image[::3].astype(np.float64)
    assert np.std(some.image - kept) < 2 * np.sqrt(kept.mean())


@pytest.mark.parametrize(("photons", "background"), [(50, 5), (5000, 200)])
def test_counts_are_those_of_the_stated_photons(photons: float, background: float) -> None:
    light = {"photons": photons, "background": background}
    made = simulate("neurites", (64, 64, 64), Acquisition(axial_fwhm_um=1.2, **light), seed=4)
    assert made.truth.min() == background
    assert 0.5 * photons < made.truth.max() - background <= photons
    # Poisson: the variance of the counts is their expectation, in the dark and in the bright.
    for part in (made.truth < 1.2 * background, made.truth > background + 0.2 * photons):
        expected = made.truth[part].astype(np.float64)
        residual = made.image[part] - expected
        assert residual.var() == pytest.approx(expected.mean(), rel=0.1)
        # The truth is rounded to whole counts.
        error = 5 * np.sqrt(expected.mean() / part.sum()) + 0.05
        assert residual.mean() == pytest.approx(0, abs=error)


@pytest.mark.parametrize("scene", SCENES)
def test_image_planes_lie_on_every_third_plane_of_the_truth(scene: str) -> None:
    acquisition = Acquisition(z_step=3, axial_fwhm_um=1.8, photons=5000)
    made = simulate(scene, (62, 64, 64), acquisition, seed=1)
    planes = made.image.shape[0]
    assert planes == 21

    def match(shift: int) -> float:
        truth = made.truth[3 + shift :: 3][: planes - 2]
        return float(np.corrcoef(made.image[1 : planes - 1].ravel(), truth.ravel())[0, 1])

    assert max((-2, -1, 0, 1, 2), key=match) == 0
    # Equally like the planes on both sides: aligned to a fraction of a plane.
    assert match(-1) == pytest.approx(match(1), abs=0.02)


def test_without_axial_blur_the_image_is_the_truth_with_shot_noise() -> None:
    made = simulate("cells", (48, 64, 64), Acquisition(axial_fwhm_um=1.2), seed=4)
    residual = made.image.astype(np.float64) - made.truth
    assert residual.mean() == pytest.approx(0.0, abs=0.2)
    # Poisson: the variance of the counts is their expectation.
    assert residual.var() == pytest.approx(made.truth.mean(), rel=0.05)


def test_blurred_neurites_are_about_as_far_from_the_truth_as_real_ones() -> None:
    made = simulate("neurites", (96, 96, 96), Acquisition(), seed=0)
    mse = np.mean((made.image.astype(np.float64) - made.truth) ** 2)
    assert 27 < 10 * np.log10(float(made.truth.max()) ** 2 / mse) < 36


def test_small_and_thin_volumes_can_be_drawn() -> None:
    for shape in ((1, 1, 1), (1, 64, 64), (5, 7, 40)):
        assert simulate("beads", shape, Acquisition(), 0).truth.shape == shape


@pytest.mark.parametrize("voxel", [0.2, 1.5])
@pytest.mark.parametrize("scene", SCENES)
def test_voxels_may_be_fine_or_coarse(scene: str, voxel: float) -> None:
    acquisition = Acquisition(
        voxel_size_um=voxel, lateral_fwhm_um=2.5 * voxel, axial_fwhm_um=6 * voxel
    )
    truth = simulate(scene, (32, 32, 32), acquisition, 0).truth
    assert truth.max() > 12


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("voxel_size_um", 0.0),
        ("voxel_size_um", float("nan")),
        ("lateral_fwhm_um", 0.4),
        ("lateral_fwhm_um", float("inf")),
        ("axial_fwhm_um", 1.0),
        ("bottom_axial_fwhm_um", 1.0),
        ("z_step", 0),
        ("z_step", 1.5),
        ("photons", 0),
        ("photons", 1e5),
        ("background", -1),
        ("background", None),
        ("background", 59900),
        ("stripes", 1.0),
        ("stripe", 0.5),
    ],
)
def test_a_bad_acquisition_is_refused_by_name(parameter: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"validation error for Acquisition\n{parameter}\n"):
        Acquisition.model_validate({parameter: value})


@pytest.mark.parametrize(
    ("scene", "shape", "seed", "name"),
    [
        ("clouds", (32, 32, 32), 0, "scene"),
        ("beads", (32, 32), 0, "shape"),
        ("beads", (32, 0, 32), 0, "shape"),
        ("beads", (32, 32.0, 32), 0, "shape"),
        ("beads", (32, 32, 32), -1, "seed"),
        ("beads", (32, 32, 32), 0.5, "seed"),
    ],
)
def test_a_bad_request_is_refused_by_name(scene: str, shape: Any, seed: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: "):
        simulate(scene, shape, Acquisition(), seed)
