"""Widths of beads in a volume, by Gaussians fitted to those that lie apart from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial import cKDTree

from isosr_pipeline.widths import FWHM_PER_SIGMA

_Floats = NDArray[np.float64]
# A maximum must stand out by this share of the highest one to count as a bead, or as a neighbour.
_FAINTEST = 0.02
# Neighbours are at least this many widths off.
_APART = 2.0
# This many widths are looked at on each side: with more, tails of neighbours narrow the fits.
_REACH = 0.75
# Two beads that are one maximum are wider than one.
_WIDEST = 1.1


@dataclass(frozen=True)
class Widths:
    """Medians over beads, in voxels.

    Parameters
    ----------
    axial, lateral : float
        Full width at half maximum along z, and the mean of those along y and x; NaN without beads.
    beads : int
        How many were fitted.
    """

    axial: float
    lateral: float
    beads: int


def lonely_beads(truth: NDArray[Any], axial: float, lateral: float) -> _Floats:
    """Find beads that have no neighbour, in a volume without noise.

    Parameters
    ----------
    truth : (z, y, x) of any real dtype
        Beads as wide along z as along y and x.
    axial, lateral : float
        FWHM in voxels that beads have in the volumes to be measured, at most.

    Returns
    -------
    (beads, 3) float64
        Centres, order z, y, x, in voxels.
    """
    values = np.asarray(truth, np.float64) - float(truth.min())
    highest = ndimage.maximum_filter(values, size=3) == values
    centres = np.argwhere(highest & (values > _FAINTEST * values.max())).astype(np.float64)
    scale = np.array([axial, lateral, lateral])
    pairs = cKDTree(centres / scale).query_pairs(_APART, output_type="ndarray")
    alone = np.setdiff1d(np.arange(len(centres)), pairs)
    inside = np.all((centres >= scale) & (centres <= np.array(truth.shape) - 1 - scale), axis=1)
    chosen = centres[alone[inside[alone]]]
    fits = np.array([fit_bead(values, centre, lateral, lateral) for centre in chosen])
    if not len(fits):
        return np.empty((0, 3))
    single = np.all(fits[:, 3:] < _WIDEST * np.median(fits[:, 3:]), axis=1)
    return fits[single, :3]


def bead_widths(volume: NDArray[Any], centres: _Floats, axial: float, lateral: float) -> Widths:
    """Fit beads whose places are known.

    Parameters
    ----------
    volume : (z, y, x) of any real dtype
    centres : (beads, 3) float64
        Those that lie too near the volume's borders are left out.
    axial, lateral : float
        FWHM in voxels that beads are expected to have.
    """
    scale = np.array([axial, lateral, lateral])
    inside = np.all((centres >= scale) & (centres <= np.array(volume.shape) - 1 - scale), axis=1)
    fits = np.array([fit_bead(volume, centre, axial, lateral) for centre in centres[inside]])
    fits = fits[np.isfinite(fits).all(axis=1)] if len(fits) else fits
    if not len(fits):
        return Widths(float("nan"), float("nan"), 0)
    along_z, along_y, along_x = np.median(fits[:, 3:], axis=0)
    return Widths(float(along_z), float(0.5 * (along_y + along_x)), len(fits))


def fit_bead(volume: NDArray[Any], centre: _Floats, axial: float, lateral: float) -> _Floats:
    """Fit a Gaussian on a constant background.

    Parameters
    ----------
    volume : (z, y, x) of any real dtype
    centre : (3,) float64
        About where, in voxels.
    axial, lateral : float
        About how wide, FWHM in voxels.

    Returns
    -------
    (6,) float64
        Centre and FWHM, both z, y, x, in voxels; NaN if the fit fails.
    """
    reach = np.ceil(_REACH * np.array([axial, lateral, lateral])).astype(np.intp)
    middle = np.rint(centre).astype(np.intp)
    start = np.maximum(middle - reach, 0)
    stop = np.minimum(middle + reach + 1, volume.shape)
    box = tuple(map(slice, start, stop))
    values = np.asarray(volume[box], np.float64)
    axes = [np.arange(a, b, dtype=np.float64) for a, b in zip(start, stop, strict=True)]

    def residual(p: _Floats) -> _Floats:
        z, y, x = (np.exp(-0.5 * ((axes[a] - p[a]) / p[3 + a]) ** 2) for a in range(3))
        return np.asarray((p[6] * _outer(z, y, x) + p[7] - values).ravel())

    def slopes(p: _Floats) -> _Floats:
        off = [(axes[a] - p[a]) / p[3 + a] for a in range(3)]
        profiles = [np.exp(-0.5 * d**2) for d in off]
        columns = []
        for power in (1, 2):
            for a in range(3):
                factors = list(profiles)
                factors[a] = profiles[a] * off[a] ** power * (p[6] / p[3 + a])
                columns.append(_outer(*factors).ravel())
        return np.stack([*columns, _outer(*profiles).ravel(), np.ones(values.size)], axis=1)

    low, high = float(values.min()), float(values.max())
    widths = np.array([axial, lateral, lateral]) / FWHM_PER_SIGMA
    first = np.concatenate([centre, widths, [max(high - low, 1e-12), low]])
    scale = np.concatenate([np.ones(3), widths, 2 * [max(high - low, 1e-12)]])
    found = optimize.least_squares(residual, first, slopes, x_scale=scale, max_nfev=100)
    moved = np.abs(found.x[:3] - centre) > reach
    if not found.success or moved.any():
        return np.full(6, np.nan)
    return np.concatenate([found.x[:3], np.abs(found.x[3:6]) * FWHM_PER_SIGMA])


def _outer(z: _Floats, y: _Floats, x: _Floats) -> _Floats:
    return np.asarray(z[:, None, None] * y[:, None] * x)
