"""PSFs of files: what is one, and how it comes onto a grid."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from isosr_pipeline.blur.psf_volumes import PsfVolume, cleaned, read_psf
from isosr_pipeline.blur.spots import fit_spot
from isosr_pipeline.errors import InputError
from isosr_pipeline.widths import FWHM_PER_SIGMA

SHAPE = (31, 41, 37)


def spot(fwhm, size, centre=(15.3, 19.6, 18.2), shape=SHAPE):
    """Return a Gaussian with widths in µm on voxels of a size in µm."""
    profiles = [
        np.exp(-0.5 * ((np.arange(n) - c) * s * FWHM_PER_SIGMA / w) ** 2)
        for n, c, s, w in zip(shape, centre, size, fwhm, strict=True)
    ]
    z, y, x = profiles
    return z[:, None, None] * y[:, None] * x


def measured(rng=None, background=12.0, noise=2.0):
    """Return a PSF of 2 × 0.8 × 0.8 µm on voxels of 0.25 × 0.1 × 0.1 µm, as a camera sees it."""
    rng = rng or np.random.default_rng(4)
    values = 1000 * spot((2.0, 0.8, 0.8), (0.25, 0.1, 0.1)) + background
    return values + rng.normal(0, noise, SHAPE)


def test_a_gaussian_is_fitted_to_a_part_of_a_voxel():
    found = fit_spot(measured())
    assert found.centre == pytest.approx((15.3, 19.6, 18.2), abs=0.02)
    assert found.fwhm == pytest.approx((8, 8, 8), rel=0.01)
    assert (found.amplitude, found.background) == pytest.approx((1000, 12), abs=10)
    assert fit_spot(np.ones((9, 9, 9))) is None


@pytest.mark.parametrize("grid", [0.1, 0.16, 0.35])
def test_widths_are_the_same_on_any_grid_and_the_centre_is_in_the_middle(grid):
    psf = PsfVolume("it", cleaned(measured(), "it"), (0.25, 0.1, 0.1))
    assert psf.fwhm == pytest.approx((2.0, 0.8, 0.8), rel=0.02)
    kernel = psf.on_grid(grid)
    assert all(n % 2 for n in kernel.shape)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1)
    for axis, width in enumerate((2.0, 0.8, 0.8)):
        profile = kernel.sum(axis=tuple(a for a in range(3) if a != axis))
        places = np.arange(len(profile)) - len(profile) // 2
        assert (profile * places).sum() == pytest.approx(0, abs=0.03)
        variance = (profile * places**2).sum()
        # Voxels larger than those of the PSF are means over them, a 12th of whose square they add.
        added = grid**2 / 12 if grid > (0.25, 0.1, 0.1)[axis] else 0.0
        sigma = np.sqrt(variance * grid**2 - added)
        assert sigma * FWHM_PER_SIGMA == pytest.approx(width, rel=0.05)


def test_files_say_their_voxel_size_or_it_is_given(tmp_path):
    path, bare = tmp_path / "psf.tif", tmp_path / "bare.tif"
    values = measured().astype(np.float32)
    metadata = {"axes": "ZYX", "spacing": 0.25, "unit": "um"}
    tifffile.imwrite(path, values, imagej=True, resolution=(10, 10), metadata=metadata)
    assert read_psf(path).voxel_size == pytest.approx((0.25, 0.1, 0.1))
    tifffile.imwrite(bare, values)
    with pytest.raises(InputError, match="--psf-voxel-size"):
        read_psf(bare)
    assert read_psf(bare, (0.5, 0.2, 0.2)).fwhm == pytest.approx((4, 1.6, 1.6), rel=0.02)


def _dipped(values):
    return values - 800 * spot((4.0, 1.6, 1.6), (0.25, 0.1, 0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda: measured()[15:], "brightest at its border, z 0 of 16"),
        (lambda: measured()[13:], "cut off: at its border"),
        (lambda: _dipped(measured()), "below its background"),
        (lambda: np.full((9, 9, 9), 3.0), "nothing is above its border"),
        (lambda: measured()[:2], "needs 3 planes"),
        (lambda: np.where(measured() > 900, np.nan, 1.0), "NaN"),
    ],
)
def test_what_is_no_psf_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        cleaned(values(), "it")


def test_noise_and_other_spots_are_left_out():
    values = measured()
    values[3, 4, 5] += 500
    found = cleaned(values, "it")
    assert found.shape < SHAPE
    assert found.sum() == pytest.approx(
        1000 * spot((2, 0.8, 0.8), (0.25, 0.1, 0.1)).sum(), rel=0.02
    )


def test_channels_and_huge_files_are_refused(tmp_path):
    two = np.zeros((2, 5, 5, 5), np.uint8)
    tifffile.imwrite(tmp_path / "two.ome.tif", two, metadata={"axes": "CZYX"})
    with pytest.raises(InputError, match="2 channels"):
        read_psf(tmp_path / "two.ome.tif", (1, 1, 1))
