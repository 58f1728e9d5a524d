"""The blur that a model has learned, as a kernel and its widths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isosr_models.architectures import RichardsonLucyArchitecture
from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import ModelError
from isosr_models.model_folder import load_blur, load_weights, read_description
from isosr_models.unet import UNet3d

SPOT = 4.0
"""FWHM in voxels of the spot that `broadening` looks at: about what a microscope resolves."""

_CUT = 1.05
_FWHM_OF_SIGMA = 2.3548
_REACH = 12
"""How far from the point the response of a U-Net is shown, in voxels."""


class Width(NamedTuple):
    """A full width at half maximum.

    Attributes
    ----------
    voxels : float
    complete : bool
        False: the profile leaves the kernel above half its maximum, and the width is larger.
    """

    voxels: float
    complete: bool


@dataclass(frozen=True)
class LearnedBlur:
    """What a model's F does to a point.

    Attributes
    ----------
    kernel : NDArray of float32, (z, y, x)
        Response to a point of height 1, in its centre; odd lengths.
    kind : {"deep-linear", "unet", "given"}
        ``"deep-linear"``: the one kernel that F is. ``"unet"``: F is a U-Net, which has no single
        kernel, and this is its response to one voxel at the top of the intensity window on the mean
        background, less that to the background alone, divided by the height of the point.
        ``"given"``: the PSF of a deconvolution, which has learned nothing.
    background : float
        The mean background, with the intensity window at 0 and 1; 0 but for a U-Net.
    voxel_size : float or None
        Of the isotropic grid, in µm; None: the model does not say.
    """

    kernel: NDArray[np.float32]
    kind: Literal["deep-linear", "unet", "given"]
    background: float
    voxel_size: float | None


def learned_blur(folder: Path) -> LearnedBlur:
    """Read the blur of a model folder.

    Parameters
    ----------
    folder : Path
        Written by `isosr_models.model_folder.save_model`.

    Raises
    ------
    ModelFormatError
        When the folder is no whole model, or keeps no blur.
    """
    description = read_description(folder)
    voxel_size = description.voxel_size
    if isinstance(description.network, RichardsonLucyArchitecture):
        psf = load_weights(folder, description)["generator.psf"].numpy()
        return LearnedBlur(psf, "given", 0.0, voxel_size)
    blur = load_blur(folder)
    if isinstance(blur, DeepLinear3d):
        with torch.no_grad():
            return LearnedBlur(blur.psf().numpy(), "deep-linear", 0.0, voxel_size)
    background = _mean_input(blur)
    return LearnedBlur(_response(blur, background), "unet", background, voxel_size)


def widths(kernel: NDArray[np.float32]) -> tuple[Width, Width, Width]:
    """Measure a kernel's full width at half maximum along each axis.

    Along the profiles through the largest value, from there outwards to where half of it is first
    passed, between two voxels by linear interpolation. Half is half of the largest value above 0:
    negative lobes count as below it and change nothing else. A delta has a width of one voxel.

    Parameters
    ----------
    kernel : NDArray of float32, (z, y, x)

    Returns
    -------
    tuple of 3 Width
        Along z, y, x. A side on which half is not passed counts to the last voxel.

    Raises
    ------
    ModelError
        When no value is above 0.
    """
    if not kernel.max() > 0:
        raise ModelError(
            f"the largest value of the learned blur is {kernel.max():g}, and a width needs one "
            "above 0: the training has gone astray; train again"
        )
    peak = np.unravel_index(int(kernel.argmax()), kernel.shape)
    return _width(kernel, peak, 0), _width(kernel, peak, 1), _width(kernel, peak, 2)


def broadening(kernel: NDArray[np.float32], spot: float = SPOT) -> tuple[Width, Width, Width]:
    """Measure by how much a kernel broadens a Gaussian spot along each axis.

    Volumes hold nothing finer than what a microscope resolves, so that training leaves a kernel's
    finest detail to chance. This is the blur of what is there: ``sqrt(after² - before²)`` of the
    spot's full widths at half maximum.

    Parameters
    ----------
    kernel : NDArray of float32, (z, y, x)
    spot : float
        FWHM before, in voxels.

    Returns
    -------
    tuple of 3 Width
        Along z, y, x; the kernel's own FWHM for a Gaussian, 0 for a point. Not complete where the
        kernel is cut off: where it would broaden the spot by a twentieth more if its outermost
        values went on.

    Raises
    ------
    ModelError
        When nothing above 0 is left of the spot.
    """
    z, y, x = (_broadening(kernel, spot, axis) for axis in range(3))
    return z, y, x


def _broadening(kernel: NDArray[np.float32], spot: float, axis: int) -> Width:
    beyond = [(0, 0)] * 3
    beyond[axis] = (kernel.shape[axis] // 2,) * 2
    found = _widened(kernel, spot)[axis]
    longer = _widened(np.pad(kernel, beyond, mode="edge"), spot)[axis]
    # Less than a voxel more is nothing to tell of a point.
    return Width(found, longer <= max(1.0, _CUT * found))


def _widened(kernel: NDArray[np.float32], spot: float) -> list[float]:
    """Return how much wider a spot is after a kernel, along each axis."""
    sigma = spot / _FWHM_OF_SIGMA
    reach = int(np.ceil(4 * sigma))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    blurred = kernel.astype(np.float64)
    for axis in range(3):
        blurred = np.apply_along_axis(np.convolve, axis, blurred, profile)
    return [
        float(np.sqrt(max(after.voxels**2 - spot**2, 0.0)))
        for after in widths(blurred.astype(np.float32))
    ]


def _width(kernel: NDArray[np.float32], peak: tuple[np.intp, ...], axis: int) -> Width:
    at = int(peak[axis])
    line = tuple(slice(None) if a == axis else int(p) for a, p in enumerate(peak))
    profile = kernel[line].astype(np.float64)
    left, right = _half(profile[at::-1]), _half(profile[at:])
    return Width(left.voxels + right.voxels, left.complete and right.complete)


def _half(falling: NDArray[np.float64]) -> Width:
    """Return how far from the first of its values a profile falls to half of it."""
    half = falling[0] / 2
    below = np.flatnonzero(falling < half)
    if not len(below):
        return Width(float(len(falling) - 1), False)
    after = int(below[0])
    step = (falling[after - 1] - half) / (falling[after - 1] - falling[after])
    return Width(after - 1 + float(step), True)


def _mean_input(network: UNet3d) -> float:
    """Return the mean of what a network was trained on, from 0 to 1.

    It is what its first normalisation has tracked: the mean of a convolution is the mean of its
    input times the sum of its weights, plus the bias, but for the border.
    """
    weight = network.get_parameter("encoder1.0.0.weight").detach()
    bias = network.get_parameter("encoder1.0.0.bias").detach()
    sums = weight.sum(dim=(1, 2, 3, 4))
    means = network.get_buffer("encoder1.0.1.running_mean") - bias
    return float(((sums * means).sum() / sums.square().sum()).clamp(0, 1))


@torch.no_grad()
def _response(network: nn.Module, background: float) -> NDArray[np.float32]:
    side = 2 * (_REACH + UNet3d.receptive_radius)
    side += -side % UNet3d.stride + UNet3d.stride
    centre = side // 2 // UNet3d.stride * UNet3d.stride
    flat = torch.full((1, 1, side, side, side), background)
    point = flat.clone()
    point[..., centre, centre, centre] = 1.0
    height = max(1.0 - background, torch.finfo(torch.float32).eps)
    response = (network(point) - network(flat))[0, 0] / height
    shown = slice(centre - _REACH, centre + _REACH + 1)
    kernel: NDArray[np.float32] = response[shown, shown, shown].contiguous().numpy()
    return kernel
