import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from isosr_pipeline.errors import InputError
from isosr_pipeline.metrics import SpectrumRatio
from isosr_pipeline.simulation import SCENES, Acquisition, simulate

SHARP = Acquisition(photons=20000, background=0)


def fwhm_um(bead: NDArray[np.float64], axis: int) -> float:
    """FWHM of a Gaussian fitted to the profile through the middle, in voxels of 0.5 µm."""
    middle = tuple(
        slice(None) if a == axis else slice(h - 1, h + 2) for a, h in enumerate(BEAD_HALF)
    )
    profile = bead[middle].sum(axis=tuple(a for a in range(3) if a != axis))
    bright = np.flatnonzero(profile > 0.15 * profile.max())
    curvature = np.polyfit(bright, np.log(profile[bright]), 2)[0]
    return float(np.sqrt(4 * np.log(2) / -curvature) * 0.5)


BEAD_HALF = (12, 8, 8)


def around(volume: NDArray[np.uint16], centre: NDArray[np.intp]) -> NDArray[np.float64]:
    box = zip(centre, BEAD_HALF, strict=True)
    return volume[tuple(slice(c - h, c + h + 1) for c, h in box)].astype(np.float64)


def lonely_beads(truth: NDArray[np.uint16]) -> list[NDArray[np.intp]]:
    """Brightest voxels of the beads that have no neighbour in a box around them."""
    labels, count = ndimage.label(truth > 0.02 * truth.max())
    lonely = []
    for centre in ndimage.maximum_position(truth, labels, np.arange(1, count + 1)):
        inside = all(h <= c < n - h for c, h, n in zip(centre, BEAD_HALF, truth.shape, strict=True))
        if inside and len(np.unique(around(labels, np.array(centre)))) == 2:
            lonely.append(np.array(centre))
    return lonely


def spectrum_ratio(volume: NDArray[np.uint16], size: int = 64) -> float:
    ratio = SpectrumRatio()
    for origin in itertools.product(*(range(0, n - size + 1, size // 2) for n in volume.shape)):
        ratio.update(volume[tuple(slice(o, o + size) for o in origin)])
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


def test_beads_have_the_stated_psf() -> None:
    made = simulate("beads", (128, 128, 128), SHARP, seed=2)
    centres = lonely_beads(made.truth)
    assert len(centres) >= 3
    truth = np.mean([around(made.truth, c) for c in centres], axis=0)
    image = np.mean([around(made.image, c) for c in centres], axis=0)
    # The bead and the voxel widen the PSF of 1.2 µm to 1.28 µm, and that of 3.6 µm to 3.63 µm.
    for axis in range(3):
        assert fwhm_um(truth, axis) == pytest.approx(1.28, rel=0.05)
    assert fwhm_um(image, 1) == pytest.approx(1.28, rel=0.05)
    assert fwhm_um(image, 2) == pytest.approx(1.28, rel=0.05)
    assert fwhm_um(image, 0) == pytest.approx(3.63, rel=0.05)


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
    acquisition = Acquisition(voxel, 2.5 * voxel, 6 * voxel)
    truth = simulate(scene, (32, 32, 32), acquisition, 0).truth
    assert truth.max() > 12


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("voxel_size_um", 0.0),
        ("voxel_size_um", float("nan")),
        ("voxel_size_um", "0.5"),
        ("lateral_fwhm_um", 0.4),
        ("lateral_fwhm_um", float("inf")),
        ("axial_fwhm_um", 1.0),
        ("z_step", 0),
        ("z_step", 1.5),
        ("z_step", True),
        ("photons", 0),
        ("photons", 1e5),
        ("background", -1),
        ("background", None),
    ],
)
def test_a_bad_acquisition_is_refused_by_name(parameter: str, value: object) -> None:
    arguments: dict[str, Any] = {parameter: value}
    name = "photons" if value == 1e5 else parameter
    with pytest.raises(InputError, match=name):
        Acquisition(**arguments)


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
