from __future__ import annotations

import numpy as np
import pytest
import torch

from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import ModelError, ModelFormatError
from isosr_models.model_folder import save_model
from isosr_models.psf import broadening, learned_blur, widths
from isosr_models.unet import UNet3d

TO_FWHM = 2 * np.sqrt(2 * np.log(2))


def gaussian(fwhm, side=13, at=(0, 0, 0)) -> np.ndarray:
    """A Gaussian kernel (z, y, x) with the given widths in voxels and a sum of 1."""
    axes = np.meshgrid(*(np.arange(side) - side // 2 - a for a in at), indexing="ij")
    exponent = sum((x * TO_FWHM / w) ** 2 for x, w in zip(axes, fwhm, strict=True))
    kernel = np.exp(-exponent / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def put_gaussian(blur: DeepLinear3d, fwhm) -> None:
    """Make the first three layers Gaussians whose composition is the one asked for."""
    with torch.no_grad():
        for layer in blur.layers:
            layer.weight.zero_()
            layer.weight[0, 0, *(n // 2 for n in layer.kernel_size)] = 1
        # Variances add, and each layer holds its share of it.
        for layer, share in zip(blur.layers[:3], (0.6, 0.28, 0.12), strict=True):
            part = gaussian([w * np.sqrt(share) for w in fwhm], layer.kernel_size[0])
            layer.weight[0, 0] = torch.from_numpy(part)


@pytest.fixture
def save(tmp_path):
    def write(blur):
        networks = {"generator": UNet3d(4, residual=blur is not None and blur.residual)}
        if blur is not None:
            networks["blur"] = blur
        save_model(
            tmp_path / "model",
            networks,
            method="ot-cyclegan",
            window_percentiles=(0.03, 99.97),
            training={},
            voxel_size=0.5,
        )
        return tmp_path / "model"

    return write


@pytest.mark.parametrize("fwhm", [(6.0, 3.0, 2.5), (4.0, 4.0, 4.0), (7.0, 2.5, 5.0)])
@pytest.mark.parametrize("at", [(0, 0, 0), (1, -1, 0)])
def test_a_gaussian_has_its_width_wherever_it_stands(fwhm, at):
    for found, expected in zip(widths(gaussian(fwhm, at=at)), fwhm, strict=True):
        assert found.complete
        assert found.voxels == pytest.approx(expected, rel=0.05)


def test_a_delta_is_one_voxel_wide():
    delta = np.zeros((13, 13, 13), np.float32)
    delta[6, 6, 6] = 3
    assert [tuple(w) for w in widths(delta)] == [(1.0, True)] * 3


def test_a_kernel_wider_than_its_window_says_so():
    z, y, _x = widths(gaussian((40.0, 3.0, 3.0)))
    assert (z.voxels, z.complete) == (12.0, False)
    assert y.complete


def test_negative_lobes_count_as_below_half():
    kernel = gaussian((4.0, 3.0, 3.0))
    lobed = kernel.copy()
    lobed[:3] -= 0.5
    lobed[-3:] -= 0.5
    assert widths(lobed) == widths(kernel)
    with pytest.raises(ModelError, match="above 0"):
        widths(-kernel)


def test_the_kernel_of_a_deep_linear_blur_is_read(save):
    blur = DeepLinear3d(4)
    put_gaussian(blur, (5.0, 4.0, 4.5))
    learned = learned_blur(save(blur))
    assert learned.kind == "deep-linear"
    assert learned.voxel_size == 0.5
    assert learned.kernel.shape == (13, 13, 13)
    assert learned.kernel.sum() == pytest.approx(1, abs=1e-3)
    for found, expected in zip(widths(learned.kernel), (5.0, 4.0, 4.5), strict=True):
        assert found.voxels == pytest.approx(expected, rel=0.05)


def test_the_identity_start_is_a_delta(save):
    learned = learned_blur(save(DeepLinear3d(4, residual=True)))
    assert [w.voxels for w in widths(learned.kernel)] == pytest.approx([1, 1, 1])


def test_the_response_of_a_unet_is_that_to_a_point_on_its_background(save):
    """A U-Net that starts as the identity gives a point back; its background is what it saw."""
    torch.manual_seed(0)
    blur = UNet3d(4, residual=True)
    blur.train()
    with torch.no_grad():
        for _ in range(60):
            blur(0.5 * torch.rand(1, 1, 32, 32, 32))
    learned = learned_blur(save(blur))
    assert learned.kind == "unet"
    assert learned.background == pytest.approx(0.25, abs=0.03)
    assert learned.kernel.shape == (25, 25, 25)
    assert learned.kernel[12, 12, 12] == pytest.approx(1, abs=1e-5)
    assert [w.voxels for w in widths(learned.kernel)] == pytest.approx([1, 1, 1])


def test_a_model_without_a_blur_is_refused(save):
    with pytest.raises(ModelFormatError, match="holds no blur"):
        learned_blur(save(None))


def test_broadening_is_the_width_of_a_gaussian_whatever_is_finer():
    places = np.arange(13) - 6
    sigmas = (2.0, 0.5, 0.5)
    z, y, x = (np.exp(-0.5 * (places / sigma) ** 2) for sigma in sigmas)
    kernel = (z[:, None, None] * y[:, None] * x).astype(np.float32)
    fine = np.random.default_rng(4).normal(0, 0.2, kernel.shape).astype(np.float32)
    # Detail that no microscope resolves: each value is taken back from its neighbours.
    fine -= (np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, 1, 2)) / 3
    point = np.zeros_like(kernel)
    point[6, 6, 6] = 1
    expected = [2.3548 * sigma for sigma in sigmas]
    for shown, truth, rel in ((point, (0, 0, 0), 0), (kernel, expected, 0.1)):
        assert [w.voxels for w in broadening(shown)] == pytest.approx(truth, abs=0.2, rel=rel)
        assert all(width.complete for width in broadening(shown))
    assert broadening(kernel + fine)[0].voxels == pytest.approx(expected[0], rel=0.2)


@pytest.mark.parametrize(("sigma", "complete"), [(1.0, True), (2.0, True), (4.0, False)])
def test_a_kernel_that_is_cut_off_says_so(sigma, complete):
    """Also where a point in its middle makes the kernel itself one voxel wide."""
    places = np.arange(13) - 6
    z, y = (np.exp(-0.5 * (places / s) ** 2) for s in (sigma, 0.5))
    kernel = (z[:, None, None] * y[:, None] * y).astype(np.float32)
    kernel[6, 6, 6] *= 1.2
    found = broadening(kernel)
    assert [width.complete for width in found] == [complete, True, True]
    if not complete:
        assert found[0].voxels < 2.3548 * sigma
