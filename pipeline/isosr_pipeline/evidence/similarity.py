"""Structural similarity: in 3D voxel by voxel, and over several scales in 2D sections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.moments import as_pair

SSIM_RADIUS = 5
"""Radius of the SSIM window, voxels: the halo a block needs for its SSIM to be exact."""

_Floats = NDArray[np.float64]

_SSIM_SIGMA, _SSIM_TRUNCATE = 1.5, 3.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
_SSIM_WIDTH = 2 * SSIM_RADIUS + 1
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim_map(reference: NDArray[Any], image: NDArray[Any], data_range: float) -> _Floats:
    """Structural similarity around every voxel.

    Wang et al. 2004 in three dimensions: Gaussian window of sigma 1.5 voxels cut at radius 5,
    K1 = 0.01, K2 = 0.03. The mean over the volume less ``SSIM_RADIUS`` voxels at each
    border equals ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True``,
    ``sigma=1.5`` and ``use_sample_covariance=False``.

    Parameters
    ----------
    reference, image : (z, y, x) of any real dtype
        The same region of both, in the same intensity units.
    data_range : float
        Difference between the highest and lowest value the intensities can take, usually
        that of the whole reference volume; the same for all blocks.

    Returns
    -------
    (z, y, x) float64
        SSIM, at most 1. Within ``SSIM_RADIUS`` of the array's borders the window reaches over
        them and sees mirrored voxels: a caller that streams trims these.

    Raises
    ------
    InputError
        If the shapes differ or ``data_range`` is not a positive finite number.
    """
    if not (math.isfinite(data_range) and data_range > 0):
        raise InputError(
            f"data_range: {data_range} is not a positive finite number; "
            "give the reference volume's maximum less its minimum"
        )
    luminance, structure = _terms(*as_pair(reference, image), data_range)
    return luminance * structure


def ms_ssim(reference: NDArray[Any], image: NDArray[Any], data_range: float) -> float | None:
    """Multi-scale structural similarity of 2D sections.

    Wang, Simoncelli and Bovik 2003: ``mean(l c)_M^w_M · Π_j<M mean(c)_j^w_j`` with the contrast
    and structure term c at each scale and the luminance l at the coarsest, means of 2 × 2 pixels
    from scale to scale, and weights 0.0448, 0.2856, 0.3001, 0.2363, 0.1333. Means are over windows
    that lie in the section, and negative ones count as 0. Sections below 176 pixels have fewer
    scales, whose weights are scaled to a sum of 1.

    Parameters
    ----------
    reference, image : (rows, columns) of any real dtype
        In the same intensity units.
    data_range : float
        As for `ssim_map`.

    Returns
    -------
    float or None
        Between 0 and 1; None where the section is smaller than a window of 11 pixels.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    first, second = as_pair(reference, image)
    scales = min(len(_MS_WEIGHTS), int(math.log2(max(min(first.shape) / _SSIM_WIDTH, 0.5))) + 1)
    if min(first.shape) < _SSIM_WIDTH:
        return None
    weights = np.array(_MS_WEIGHTS[:scales]) / sum(_MS_WEIGHTS[:scales])
    inside = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 2
    product = 1.0
    for scale, weight in enumerate(weights):
        luminance, structure = _terms(first, second, data_range)
        last = scale == scales - 1
        mean = float((luminance * structure if last else structure)[inside].mean())
        product *= max(mean, 0.0) ** weight
        first, second = _halved(first), _halved(second)
    return float(product)


def _halved(section: _Floats) -> _Floats:
    rows, columns = (n // 2 * 2 for n in section.shape)
    pairs = section[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2)
    return np.asarray(pairs.mean(axis=(1, 3)))


def _terms(first: _Floats, second: _Floats, data_range: float) -> tuple[_Floats, _Floats]:
    """Return the luminance term of SSIM, and that of contrast and structure."""
    mean1, mean2 = _ssim_window(first), _ssim_window(second)
    product = mean1 * mean2
    power = mean1**2 + mean2**2
    covariance = _ssim_window(first * second) - product
    variances = _ssim_window(first**2 + second**2) - power
    c1, c2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
    return (2 * product + c1) / (power + c1), (2 * covariance + c2) / (variances + c2)


def _ssim_window(values: _Floats) -> _Floats:
    averaged = ndimage.gaussian_filter(values, _SSIM_SIGMA, truncate=_SSIM_TRUNCATE)
    return np.asarray(averaged, np.float64)
