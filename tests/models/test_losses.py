"""Losses against scikit-image, the pipeline's own figures, and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from isosr_models.losses import SSIM_RADIUS, charbonnier, least_squares, ssim


def _images(seed: int, noise: float):
    rng = np.random.default_rng(seed)
    reference = ndimage.gaussian_filter(rng.random((3, 1, 40, 37)), (0, 0, 2, 2)).astype(np.float32)
    image = reference + noise * rng.standard_normal(reference.shape).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(reference)


@pytest.mark.parametrize("noise", [0.003, 0.05, 0.5])
def test_ssim_is_that_of_scikit_image(noise):
    image, reference = _images(0, noise)
    expected = [
        structural_similarity(
            a.numpy()[0].astype(float),
            b.numpy()[0].astype(float),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for a, b in zip(image, reference, strict=True)
    ]
    assert float(ssim(image, reference)) == pytest.approx(np.mean(expected), abs=1e-4)


def test_ssim_is_1_of_an_image_and_itself_and_its_gradient_leads_there():
    image, reference = _images(1, 0.05)
    assert float(ssim(reference, reference)) == pytest.approx(1.0, abs=1e-6)
    found = image.clone().requires_grad_()
    optimiser = torch.optim.Adam([found], lr=5e-3)
    before = float(ssim(image, reference))
    for _ in range(25):
        optimiser.zero_grad()
        (1 - ssim(found, reference)).backward()
        optimiser.step()
    assert before < 0.8
    assert float(ssim(found.detach(), reference)) > 0.95


def test_ssim_has_the_gradient_of_its_differences():
    image, reference = (one[:1, :, :13, :12].double() for one in _images(2, 0.3))
    image.requires_grad_()
    ssim(image, reference).backward()
    place = (0, 0, 6, 5)
    step = 1e-2
    values = []
    for sign in (1, -1):
        moved = image.detach().clone()
        moved[place] += sign * step
        values.append(float(ssim(moved, reference)))
    slope = (values[0] - values[1]) / (2 * step)
    assert float(image.grad[place]) == pytest.approx(slope, rel=0.02)


def test_ssim_is_computed_in_float32_whatever_the_precision_around_it():
    image, reference = _images(3, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(ssim(image, reference)) == pytest.approx(float(ssim(image, reference)))
        inside = ssim(image, reference)
    assert inside.dtype is torch.float32
    assert float(inside) == float(ssim(image, reference))


def test_ssim_needs_images_that_hold_its_window():
    side = 2 * SSIM_RADIUS + 1
    assert float(ssim(torch.zeros(1, 1, side, side), torch.zeros(1, 1, side, side))) == 1.0


def test_charbonnier_by_hand():
    image, reference = torch.tensor([0.0, 3e-3, -1.0]), torch.tensor([0.0, -1e-3, 0.0])
    expected = (1e-3 + (16e-6 + 1e-6) ** 0.5 + (1 + 1e-6) ** 0.5) / 3
    assert float(charbonnier(image, reference)) == pytest.approx(expected, rel=1e-6)
    same = torch.zeros(4, requires_grad=True)
    charbonnier(same, torch.zeros(4)).backward()
    assert torch.equal(same.grad, torch.zeros(4))


def test_least_squares_by_hand():
    scores = torch.tensor([1.0, 2.0, 3.0])
    assert float(least_squares(scores, 1.0)) == pytest.approx((0 + 1 + 4) / 3)
