"""What Richardson-Lucy deconvolution works with: the PSF on the grid of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from isosr_models.richardson_lucy import RichardsonLucy
from isosr_pipeline.blur.psf_volumes import PsfVolume, read_psf
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.widths import FWHM_PER_SIGMA

_Floats = NDArray[np.float64]

_CUT = 3.5
"""Standard deviations to which Gaussians go: 99.95 % of them along each axis."""

MAX_REACH = 256
"""Longest halo that a deconvolution may need, in voxels."""

_MOST_VOXELS = 256**3


def given_psf(settings: RichardsonLucySettings) -> PsfVolume | None:
    """Read the PSF of a file, if there is one, and refuse what is none.

    Parameters
    ----------
    settings : RichardsonLucySettings

    Raises
    ------
    InputError
        When the file can't be read or is no PSF.
    """
    if settings.psf is None:
        return None
    return read_psf(settings.psf, settings.psf_voxel_size)


def deconvolution(settings: RichardsonLucySettings, voxel_size: float) -> RichardsonLucy:
    """Make what restores, with the PSF on an isotropic grid.

    Parameters
    ----------
    settings : RichardsonLucySettings
    voxel_size : float
        Of the grid, in µm.

    Raises
    ------
    InputError
        When the PSF can't be read, is none, or reaches too far on this grid.
    """
    measured = given_psf(settings)
    if measured is None:
        lateral = settings.lateral_fwhm
        widths = (settings.axial_fwhm or 0.0, lateral, lateral)
        _check_length([2 * _CUT * w / FWHM_PER_SIGMA for w in widths], voxel_size)
        kernel = gaussian([w / voxel_size for w in widths])
    else:
        extent = zip(measured.values.shape, measured.voxel_size, strict=True)
        _check_length([n * size for n, size in extent], voxel_size)
        kernel = measured.on_grid(voxel_size)
        _axial, *sharp = measured.fwhm if settings.resolution == "lateral" else (0.0, 0.0, 0.0)
        lateral = math.sqrt(sharp[0] * sharp[1])
    lateral = lateral if settings.resolution == "lateral" else 0.0
    target = gaussian([lateral / voxel_size] * 3)
    found = RichardsonLucy(torch.from_numpy(kernel), torch.from_numpy(target), settings.iterations)
    if found.receptive_radius > MAX_REACH:
        raise InputError(
            f"{settings.iterations} iterations with a PSF of {' × '.join(map(str, kernel.shape))} "
            f"voxels of {voxel_size:g} µm reach {found.receptive_radius} voxels, and may reach "
            f"{MAX_REACH}; give fewer --iterations, or look at the width of the PSF"
        )
    return found


def gaussian(fwhm: Sequence[float]) -> _Floats:
    """Return a Gaussian kernel with a sum of 1.

    Parameters
    ----------
    fwhm : sequence of 3 floats
        Full widths at half maximum along z, y, x, in voxels; 0: a single voxel.

    Returns
    -------
    ndarray, (z, y, x) float64
        Odd lengths.
    """
    z, y, x = (_profile(width / FWHM_PER_SIGMA) for width in fwhm)
    return np.asarray(z[:, None, None] * y[:, None] * x, np.float64)


def _profile(sigma: float) -> _Floats:
    radius = math.ceil(_CUT * sigma)
    profile = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    return np.asarray(profile / profile.sum(), np.float64)


def _check_length(extent: Sequence[float], voxel_size: float) -> None:
    """Refuse a PSF that is too long on a grid; the extent is in µm."""
    longest = 2 * MAX_REACH + 1
    for axis, length in zip(AXES, extent, strict=True):
        if length > longest * voxel_size:
            raise InputError(
                f"the PSF is {length:.3g} µm long along {axis}, and may be {longest} voxels of "
                f"{voxel_size:g} µm; look at its width and its voxel size, or cut it"
            )
    if math.prod(max(1.0, n / voxel_size) for n in extent) > _MOST_VOXELS:
        lengths = " × ".join(f"{n:.3g}" for n in extent)
        raise InputError(
            f"the PSF is {lengths} µm large, too many voxels of {voxel_size:g} µm; look at its "
            "width and its voxel size, or cut it"
        )
