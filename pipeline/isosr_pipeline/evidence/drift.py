"""Mean intensities of slabs along z, told from coarse levels that average the whole volume."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.foreground import choose_level, read_level
from isosr_pipeline.isotropic import Part
from isosr_pipeline.sampling import Grid
from isosr_pipeline.store.volume import Volume

MOST_SLABS = 64

_Floats = NDArray[np.float64]


def slab_borders(depth: int) -> NDArray[np.int64]:
    """Return where up to 64 slabs of a volume begin, and where the last one ends, in planes."""
    count = min(MOST_SLABS, depth)
    return np.linspace(0, depth, count + 1).round().astype(np.int64)


def slab_means(
    part: Part, volume: Volume, channel: int, borders: NDArray[np.int64]
) -> _Floats | None:
    """Return the mean intensity of slabs, in the units of the volume.

    Parameters
    ----------
    part : Part
    volume : Volume
        What it is a part of, with its pyramid: the finest level of at most 2²⁴ voxels is read.
        Lateral borders of the part are rounded outwards to its voxels.
    channel : int
        Of the part.
    borders : ndarray, (slabs + 1,) int64
        In planes of the part.

    Returns
    -------
    ndarray, (slabs,) float64, or None
        None: there is no level small enough.
    """
    level = choose_level(volume)
    if level is None:
        return None
    voxels = read_level(volume, part.channels[channel], level)
    steps = volume.step(level)
    lateral = []
    for axis in (1, 2):
        start, stop = part.box.start[axis] / steps[axis], part.box.stop[axis] / steps[axis]
        lateral.append(slice(math.floor(start), min(math.ceil(stop), voxels.shape[axis])))
    planes = voxels[:, lateral[0], lateral[1]].mean(axis=(1, 2), dtype=np.float64)
    grid = Grid(part.view.planes_per_voxel, steps[0], part.box.start.z)
    low, high = grid.edges(borders[:-1].astype(np.float64), 0, len(planes))
    _, high = grid.edges(borders[1:].astype(np.float64), 0, len(planes))
    integral = np.concatenate([[0.0], np.cumsum(planes)])
    positions = np.arange(len(integral))
    area = np.interp(high, positions, integral) - np.interp(low, positions, integral)
    return np.asarray(area / (high - low))
