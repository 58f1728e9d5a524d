"""Losses that compare images pixel by pixel and by their structure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SSIM_RADIUS = 5
"""Radius in pixels of the window of `ssim`, which images must hold."""

_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def least_squares(scores: Tensor, target: float) -> Tensor:
    """Return the mean of ``(scores - target)²``, the least-squares GAN term (Mao et al. 2017)."""
    return (scores.float() - target).square().mean()


def charbonnier(image: Tensor, reference: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of ``sqrt((image - reference)² + epsilon²)``, an L1 that is smooth at 0.

    Parameters
    ----------
    image, reference : Tensor of any shape
    epsilon : float
        Of the intensities: differences well below it count squared.
    """
    difference = image.float() - reference.float()
    return (difference.square() + epsilon**2).sqrt().mean()


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean structural similarity of images, differentiable.

    Wang et al. 2004 with a Gaussian window of sigma 1.5 pixels cut at radius 5, K1 = 0.01 and
    K2 = 0.03, and intensities from 0 to 1; the mean is over the pixels whose window lies in the
    image. Equals ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True``,
    ``sigma=1.5``, ``use_sample_covariance=False`` and ``data_range=1``.

    Parameters
    ----------
    image, reference : Tensor, (n, 1, height, width)
        Each length 11 pixels or more.
    """
    # A difference of squares: half precision would leave nothing of the variance.
    with torch.autocast(image.device.type, enabled=False):
        a, b = image.float(), reference.float()
        mean_a, mean_b = _windowed(a), _windowed(b)
        product, power = mean_a * mean_b, mean_a.square() + mean_b.square()
        covariance = _windowed(a * b) - product
        variances = _windowed(a.square() + b.square()) - power
        c1, c2 = _SSIM_K1**2, _SSIM_K2**2
        similarity = (2 * product + c1) * (2 * covariance + c2)
        return (similarity / ((power + c1) * (variances + c2))).mean()


def _windowed(images: Tensor) -> Tensor:
    """Average around each pixel whose window lies in the image, (n, 1, height, width)."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (offsets / _SSIM_SIGMA).square())
    weights = weights / weights.sum()
    rows = functional.conv2d(images, weights.view(1, 1, -1, 1))
    return functional.conv2d(rows, weights.view(1, 1, 1, -1))
