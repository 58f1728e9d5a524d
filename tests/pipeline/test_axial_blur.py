from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from isosr_pipeline.blur.axial import estimate
from isosr_pipeline.blur.cautions import warnings
from isosr_pipeline.blur.form import HALF_TIMES_SIGMA
from isosr_pipeline.blur.power_spectra import SpectralGrid
from isosr_pipeline.errors import InputError
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.widths import FWHM_PER_SIGMA

VOXEL, LATERAL = 0.5, 1.2
SIDE, EDGE = 128, 64


def _places(shape, size):
    starts = [range(0, n - s + 1, s // 2) for n, s in zip(shape, size, strict=True)]
    return list(product(*starts))


def _spectra(image, step=1, edge=EDGE):
    size = (round(edge / step), edge, edge)
    grid = SpectralGrid(size, float(step))
    places = _places(image.shape, size)
    boxes = [tuple(slice(a, a + n) for a, n in zip(p, size, strict=True)) for p in places]
    depths = [(p[0] + size[0] / 2) * step for p in places]
    return grid, [grid.spectrum(image[box]) for box in boxes], depths


def _estimate(image, step=1, edge=EDGE):
    found = estimate(*_spectra(image, step, edge))
    assert found is not None
    return found


def _simulated(scene, times, z_step=1, seed=1):
    axial = times * LATERAL
    seen = Acquisition(
        voxel_size_um=VOXEL, lateral_fwhm_um=LATERAL, axial_fwhm_um=axial, z_step=z_step
    )
    true = math.sqrt(axial**2 - LATERAL**2) / FWHM_PER_SIGMA / VOXEL
    return simulate(scene, (SIDE, SIDE, SIDE), seen, seed).image, true


@pytest.fixture(scope="module")
def sharp():
    """Beads under a PSF that is alike along all axes, without noise but for rounding."""
    seen = Acquisition(axial_fwhm_um=1.2, lateral_fwhm_um=1.2, photons=20000)
    return simulate("beads", (192, 96, 96), seen, seed=3).truth.astype(np.float64)


def _noisy(expected, seed=0):
    return np.random.default_rng(seed).poisson(expected / 20).astype(np.uint16)


@pytest.mark.parametrize("scene", ["neurites", "cells", "beads"])
@pytest.mark.parametrize(("times", "z_step"), [(2, 1), (3.3, 1), (2, 3), (3.3, 3)])
def test_a_known_blur_is_found(scene, times, z_step):
    image, true = _simulated(scene, times, z_step)
    found = _estimate(image, z_step)
    for square in (found.lateral, found.against_x, found.against_y):
        assert square.sigma == pytest.approx(true, rel=0.05)
        low, high = square.interval
        assert low < square.sigma < high < 1.1 * low
    low, high = found.spread
    assert low < true < high
    assert found.depth.found == "same"


def test_intervals_hold_the_truth_nearly_always():
    seen, held = Acquisition(axial_fwhm_um=3.0, photons=100), 0
    square = (3.0**2 - 1.2**2) / (FWHM_PER_SIGMA * VOXEL) ** 2
    for seed in range(8):
        image = simulate("beads", (96, 96, 96), seen, seed).image
        found = _estimate(image, edge=48).lateral
        # The interval is not so wide that it would hold anything.
        assert found.error < 0.1 * square
        low, high = found.interval
        held += low**2 < square < high**2
    assert held >= 7


@pytest.mark.parametrize("scene", ["neurites", "cells", "beads"])
def test_a_volume_that_is_isotropic_has_none(scene):
    image, _ = _simulated(scene, 1)
    found = _estimate(image)
    low, high = found.lateral.interval
    assert low == 0
    assert high < 0.5
    assert not list(warnings(found))


def test_a_blur_along_y_is_told_from_one_along_x(sharp):
    blurred = ndimage.gaussian_filter(sharp, (3.0, 1.5, 0))
    found = _estimate(_noisy(blurred))
    assert found.against_x.sigma == pytest.approx(3.0, rel=0.05)
    assert found.against_y.sigma == pytest.approx(math.sqrt(3.0**2 - 1.5**2), rel=0.05)
    assert found.against_x.interval[0] > found.against_y.interval[1]
    assert found.plane.direction == pytest.approx(90, abs=5)
    assert found.plane.probability < 1e-6


def test_a_turned_blur_in_the_plane_has_its_direction(sharp):
    blurred = ndimage.gaussian_filter1d(sharp, 3.0, axis=0)
    y, x = math.sin(math.radians(30)), math.cos(math.radians(30))
    away = np.linspace(-4.5, 4.5, 13)
    weights = np.exp(-0.5 * (away / 1.5) ** 2)
    shifted = [ndimage.shift(blurred, (0, t * y, t * x), order=1, mode="wrap") for t in away]
    found = _estimate(_noisy(np.average(shifted, axis=0, weights=weights)))
    assert found.plane.direction == pytest.approx(30, abs=3)


def _focused(sharp, sigmas):
    """Blur each plane by a sigma of its own."""
    steps = np.round(sigmas, 1)
    blurred = {s: ndimage.gaussian_filter1d(sharp, s, axis=0) for s in np.unique(steps)}
    return np.stack([blurred[s][z] for z, s in enumerate(steps)])


@pytest.mark.parametrize("shape", ["steady", "focus"])
def test_a_change_with_depth_is_found(sharp, shape):
    planes = len(sharp)
    at = np.linspace(0, 1, planes)
    share = at if shape == "steady" else np.abs(2 * at - 1)
    found = _estimate(_noisy(_focused(sharp, 1.5 + 1.5 * share)), edge=48)
    assert found.depth.found == "changes"
    assert any("depth" in text for text in warnings(found))
    widths = [stratum.sigma for stratum in found.depth.strata]
    if shape == "steady":
        assert widths == sorted(widths)
        assert widths[-1] - widths[0] > 0.6
    else:
        assert min(widths) < min(widths[0], widths[-1])


@pytest.mark.parametrize("seed", range(3))
def test_no_change_with_depth_is_found_where_there_is_none(sharp, seed):
    blurred = ndimage.gaussian_filter1d(sharp, 2.2, axis=0)
    found = _estimate(_noisy(blurred, seed), edge=48)
    assert found.depth.found == "same"
    assert not any("depth" in text for text in warnings(found))


def _tubes(axis, seed=0):
    """Straight tubes along one axis, a little askew."""
    rng = np.random.default_rng(seed)
    volume = np.zeros((SIDE, SIDE, SIDE))
    along = np.linspace(-SIDE, SIDE, 4 * SIDE)[:, None]
    for _ in range(400):
        direction = rng.normal(0, 0.15, 3)
        direction[axis] = 1
        points = np.rint(rng.random(3) * SIDE + along * direction).astype(int)
        points = points[((points >= 0) & (points < SIDE)).all(axis=1)]
        volume[tuple(points.T)] += 1
    blurred = ndimage.gaussian_filter(volume, (3.2, 1.4, 1.4))
    return rng.poisson(blurred / blurred.max() * 400 + 10).astype(np.uint16)


@pytest.mark.parametrize(("axis", "words"), [(0, "run along z"), (1, "90°"), (2, "0°")])
def test_tissue_with_one_direction_is_warned_about(axis, words):
    found = _estimate(_tubes(axis))
    said = " ".join(warnings(found))
    if axis:
        angle = found.plane.direction
        assert min(abs(angle - a) for a in ((90,) if axis == 1 else (0, 180))) < 5
        assert "structures in the plane run along" in said
        true = math.sqrt(3.2**2 - 1.4**2)
        free = found.with_directions.sigma
        assert abs(free - true) < abs(found.lateral.sigma - 3.2)
    else:
        assert words in said


def test_noise_alone_tells_nothing():
    noise = np.random.default_rng(0).poisson(100, (96, 96, 96))
    assert estimate(*_spectra(noise)) is None
    assert estimate(*_spectra(np.full((64, 64, 64), 7))) is None


def test_a_core_with_a_halo_is_no_gaussian(sharp):
    halo = 0.5 * sharp + 0.5 * ndimage.gaussian_filter1d(sharp, 5.0, axis=0)
    found = _estimate(_noisy(halo), edge=48)
    assert found.form is not None
    assert not found.form.gaussian
    amplitudes = np.array(found.form.amplitudes)
    assert (np.diff(amplitudes) <= 0).all()
    # Beyond the halo's own frequencies the core is left, with half of the light.
    assert amplitudes[-1] == pytest.approx(0.5, abs=0.1)
    assert any("not a Gaussian" in text for text in warnings(found))


def test_a_gaussian_falls_to_half_where_it_should(sharp):
    found = _estimate(_noisy(ndimage.gaussian_filter1d(sharp, 2.5, axis=0)), edge=48)
    assert found.form is not None
    assert found.form.gaussian
    assert found.form.sigma == pytest.approx(2.5, rel=0.1)
    frequency = HALF_TIMES_SIGMA / 2.5
    assert math.exp(-2 * math.pi**2 * 2.5**2 * frequency**2) == pytest.approx(0.5)


def test_a_blur_that_is_too_wide_for_the_sub_volumes_is_warned_about(sharp):
    found = _estimate(_noisy(ndimage.gaussian_filter1d(sharp, 6.0, axis=0)), edge=48)
    assert any("too wide" in text for text in warnings(found))
    assert not any("too wide" in text for text in warnings(_estimate(_noisy(sharp), edge=48)))


def test_sub_volumes_that_are_far_off_are_left_out(sharp):
    blurred = _noisy(ndimage.gaussian_filter1d(sharp, 3.0, axis=0))
    grid, spectra, depths = _spectra(blurred, edge=48)
    _, odd, _ = _spectra(_noisy(sharp), edge=48)
    found = estimate(grid, [*spectra, *odd[:2]], [*depths, 30.0, 60.0])
    clean = estimate(grid, spectra, depths)
    assert found.left_out >= 2
    assert found.lateral.sigma == pytest.approx(clean.lateral.sigma, rel=0.02)


def test_the_brightness_of_a_sub_volume_does_not_count(sharp):
    grid, spectra, depths = _spectra(_noisy(ndimage.gaussian_filter1d(sharp, 3.0, axis=0)))
    powers = 10.0 ** np.arange(len(spectra))
    scaled = [(p * s, n * s) for (p, n), s in zip(spectra, powers, strict=True)]
    first, second = estimate(grid, spectra, depths), estimate(grid, scaled, depths)
    assert second.lateral.value == pytest.approx(first.lateral.value, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "step", "message"),
    [((64, 20, 64), 1.0, "along y"), ((8, 64, 64), 1.0, "along z"), ((6, 64, 64), 8.0, "6 planes")],
)
def test_what_is_too_small_is_refused(shape, step, message):
    with pytest.raises(InputError, match=message):
        SpectralGrid(shape, step)


def test_voxels_that_are_not_numbers_are_refused():
    voxels = np.zeros((64, 64, 64), np.float32)
    voxels[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="NaN"):
        SpectralGrid(voxels.shape, 1.0).spectrum(voxels)
