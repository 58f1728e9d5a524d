"""Where a volume shows something, read off a coarse level of its pyramid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.sampling import Cells, Grid, shares
from isosr_pipeline.store.volume import Volume

MOST_VOXELS = 1 << 24
"""Voxels of a level, in a channel, that are read at the most: half a second's work."""

DIM = 0.1
"""What lies this part of the intensity window above its low end is foreground for certain."""

_BINS = 256
_SLAB = 1 << 21


def choose_level(volume: Volume) -> int | None:
    """Return the finest level that is small enough to be read as a whole; None: there is none."""
    sizes = [np.prod([float(n) for n in array.shape[1:]]) for array in volume.arrays]
    return next((level for level, size in enumerate(sizes) if size <= MOST_VOXELS), None)


def foreground_shares(
    view: IsotropicView,
    volume: Volume,
    channel: int,
    level: int,
    cells: Cells,
    crop: Zyx,
    window: tuple[float, float],
) -> NDArray[np.float64]:
    """Return the share of foreground in the crops of each cell.

    Parameters
    ----------
    view : IsotropicView
    volume : Volume
        What `view` shows.
    channel : int
    level : int
        From which foreground is told.
    cells : Cells
        Of the places where crops may start.
    crop : Zyx
        In voxels of the isotropic grid.
    window : tuple of 2 floats
        Intensities that become 0 and 1.

    Returns
    -------
    ndarray, (z, y, x) float64
        Between 0 and 1; all 0 where nothing stands out.
    """
    found = find_foreground(read_level(volume, channel, level), window)
    ratios = (view.planes_per_voxel, 1.0, 1.0)
    steps = volume.step(level)
    grids = [Grid(ratio, step) for ratio, step in zip(ratios, steps, strict=True)]
    return shares(found, cells, crop, grids)


def find_foreground(voxels: NDArray[Any], window: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell foreground from background.

    Otsu's threshold parts the intensities, with those above the lowest tenth of the window taken
    as the end of that tenth: bright structures can't hide dim tissue, and tissue that fills the
    volume is not parted. Zeros don't count, since nothing was acquired where a deskewed volume has
    them.

    Parameters
    ----------
    voxels : ndarray
    window : tuple of 2 floats

    Returns
    -------
    ndarray of bool, of the shape of `voxels`
    """
    low, high = window[0], window[0] + DIM * (window[1] - window[0])
    flat = voxels.ravel()
    counts = np.zeros(_BINS, np.int64)
    for begin in range(0, flat.size, _SLAB):
        piece = flat[begin : begin + _SLAB]
        piece = piece[np.isfinite(piece) & (piece != 0)].astype(np.float64)
        bins = np.clip((piece - low) * (_BINS / (high - low)), 0, _BINS - 1)
        counts += np.bincount(bins.astype(np.intp), minlength=_BINS)
    threshold = low + (high - low) * _otsu(counts) / _BINS
    return np.asarray((voxels >= threshold) & (voxels != 0), np.bool_)


def _otsu(counts: NDArray[np.int64]) -> int:
    """Return the first bin of the upper class; the last bin if there is but one class."""
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = float(counts.sum()) - below
    moments = np.cumsum(counts * np.arange(len(counts)))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (moments[:-1] / below - (moments[-1] - moments[:-1]) / above) ** 2
    if not np.isfinite(between).any():
        return len(counts) - 1
    return int(np.nanargmax(between)) + 1


def read_level(volume: Volume, channel: int, level: int) -> NDArray[Any]:
    """Read a level slab by slab, so that what is decoded at once stays small.

    Returns (z, y, x) of the volume's dtype; see `choose_level`.
    """
    _, depth, height, width = volume.arrays[level].shape
    chunk = volume.arrays[level].chunks[1]
    planes = max(1, _SLAB // (height * width * chunk)) * chunk
    voxels = np.empty((depth, height, width), volume.dtype)
    for z in range(0, depth, planes):
        stop = min(z + planes, depth)
        box = Box(Zyx(z, 0, 0), Zyx(stop, height, width))
        voxels[z:stop] = volume.read(channel, box, level)
    return voxels
