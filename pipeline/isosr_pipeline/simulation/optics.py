"""What a simulated microscope makes of an object: shadows in its light sheet, and its PSF.

Fields are those of `isosr_pipeline.simulation.scenes`: periodic, (z, y, x), somewhat larger than
the volume that is cut out of them. Lengths are in voxels unless a name ends in ``_um``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from isosr_pipeline.simulation.scenes.fields import Field, Floats, Rng, blur
from isosr_pipeline.widths import FWHM_PER_SIGMA

_SHADOWS_PER_UM2 = 0.02
_SHADOW_SIGMA_UM = (0.6, 2.5)
_SHADOW_ONSET_UM = 4.0
# Where a Gaussian is cut off, in standard deviations; scipy's filters have the same.
_TRUNCATE = 4.0


def blur_planes(field: Field, fwhm: float) -> Field:
    """Blur every XY plane by the lateral PSF, whose FWHM is `fwhm` voxels."""
    sigma = fwhm / FWHM_PER_SIGMA
    return blur(blur(field, sigma, 2), sigma, 1)


def blur_along_z(field: Field, fwhm: float) -> Field:
    """Blur along z by a Gaussian whose FWHM is `fwhm` voxels."""
    return _without_negative(blur(field, fwhm / FWHM_PER_SIGMA, 0))


def blur_by_depth(field: Field, depth: int, top_fwhm: float, bottom_fwhm: float) -> Field:
    """Blur along z by a Gaussian whose width depends on where the light comes from.

    The light of a plane is spread by that plane's own Gaussian, so that none is lost.

    Parameters
    ----------
    field : (z, y, x) float32
        The planes beyond the volume are taken to lie under its last plane, or, in the further
        half, above its first: the field is periodic.
    depth : int
        Planes of the volume, which begins with the field's first plane.
    top_fwhm, bottom_fwhm : float
        Full width at half maximum at the first and at the last plane of the volume; linear between.

    Returns
    -------
    (z, y, x) float32
    """
    planes = np.arange(len(field))
    share = np.clip(planes / max(depth - 1, 1), 0.0, 1.0)
    share[planes > 0.5 * (depth - 1 + len(field))] = 0.0
    sigmas = (top_fwhm + (bottom_fwhm - top_fwhm) * share) / FWHM_PER_SIGMA
    spread = _spreading(sigmas) @ field.reshape(len(field), -1)
    return _without_negative(spread.reshape(field.shape))


def _spreading(sigmas: Floats) -> sparse.csr_array:
    """Return the matrix that spreads each of the periodic planes by its own Gaussian."""
    planes = len(sigmas)
    reach = math.ceil(_TRUNCATE * float(sigmas.max()))
    offsets = np.arange(-reach, reach + 1)[:, None]
    weights = np.exp(-0.5 * (offsets / sigmas) ** 2)
    weights[np.abs(offsets) > np.ceil(_TRUNCATE * sigmas)] = 0.0
    weights /= weights.sum(axis=0)
    source = np.broadcast_to(np.arange(planes), weights.shape)
    places = ((source + offsets).ravel() % planes, source.ravel())
    return sparse.csr_array((weights.ravel().astype(np.float32), places), shape=(planes, planes))


def _without_negative(field: Field) -> Field:
    # Rounding of the filter must not leave negative Poisson rates.
    return np.maximum(field, 0)


def excitation(rng: Rng, shape: tuple[int, int, int], voxel_um: float, darkest: float) -> Field:
    """Draw the light that a sheet along x brings to each voxel, behind what takes some of it.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of 3 ints
        Of the field.
    voxel_um : float
        Edge of a voxel, µm.
    darkest : float
        Share of the light that the darkest shadows take, 0 to 1.

    Returns
    -------
    (z, y, x) float32
        From ``1 - darkest`` to 1. A shadow is a Gaussian across y and z, begins anywhere along x,
        also before the field, and goes on to its end.
    """
    depth, height, width = shape
    taken = np.zeros(shape, np.float32)
    count = max(1, round(_SHADOWS_PER_UM2 * depth * height * voxel_um**2))
    for z, y, x, size, strength in rng.random((count, 5)):
        low, high = _SHADOW_SIGMA_UM
        sigma = low * (high / low) ** size / voxel_um
        across_z, rows = _profile(z * depth, sigma, depth)
        across_y, columns = _profile(y * height, sigma, height)
        begin = (2.0 * x - 1.0) * width
        along = np.clip((np.arange(width) - begin) * voxel_um / _SHADOW_ONSET_UM, 0.0, 1.0)
        # Few absorb much: the optical depth of what lies in the way is exponential.
        profile = -math.log(1.0 - strength) * across_z[:, None, None] * across_y[:, None] * along
        taken[rows, columns] += profile.astype(np.float32)
    return np.asarray(1.0 - darkest * -np.expm1(-taken), np.float32)


def _profile(centre: float, sigma: float, size: int) -> tuple[Floats, slice]:
    """Return a Gaussian of height 1 around a place, and the part of an axis that it is seen in."""
    reach = _TRUNCATE * sigma
    part = slice(max(math.floor(centre - reach), 0), min(math.ceil(centre + reach) + 1, size))
    return np.exp(-0.5 * ((np.arange(part.start, part.stop) - centre) / sigma) ** 2), part
