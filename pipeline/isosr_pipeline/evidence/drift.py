"""Mean intensities of slabs along z, told from coarse levels that average the whole volume.

Restoration moves light along z, by about the width of the axial PSF. Slabs must be several times as
thick, or a perfect result would seem to drift; and a camera's offset is no intensity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.foreground import choose_level, read_level
from isosr_pipeline.isotropic import Part
from isosr_pipeline.sampling import Grid
from isosr_pipeline.store.volume import Volume

MOST_SLABS = 64

LEAST_PLANES = 32
"""Planes of a slab, at the least."""

LEAST_MEASURED = 16
"""The same in measured planes, of which a microscope's PSF seldom spans more than four."""

_BACKGROUND = 1.0
"""Percentile of what the input shows that is background."""

_AVERAGED = (2, 4, 4)
"""Voxels whose mean is looked at for it, along z, y, x: noise hardly lowers that percentile."""

_Floats = NDArray[np.float64]


def slab_borders(depth: int, planes_per_voxel: float) -> NDArray[np.int64]:
    """Return where up to 64 slabs of a volume begin, and where the last one ends, in planes.

    Parameters
    ----------
    depth : int
        In planes of the isotropic grid. A volume of fewer than two slabs is one.
    planes_per_voxel : float
        Measured planes in one of them; see `IsotropicView`.
    """
    least = max(LEAST_PLANES, math.ceil(LEAST_MEASURED / planes_per_voxel))
    count = min(MOST_SLABS, max(1, depth // least))
    return np.linspace(0, depth, count + 1).round().astype(np.int64)


@dataclass(frozen=True)
class CoarsePart:
    """A channel of a part of a volume, seen in a level that is small enough to be read as a whole.

    Parameters
    ----------
    voxels : ndarray, (z, y, x)
        All planes of the level; along y and x the part, rounded outwards.
    steps : tuple of 3 floats
        Measured voxels in one of them, order z, y, x.
    grid : Grid
        Where its planes lie in the part.
    depth : int
        Planes of the part.
    """

    voxels: NDArray[Any]
    steps: tuple[float, float, float]
    grid: Grid
    depth: int

    @classmethod
    def of(cls, part: Part, volume: Volume, channel: int) -> CoarsePart | None:
        """Read the finest level of at most 2²⁴ voxels; None: there is none.

        Parameters
        ----------
        part : Part
        volume : Volume
            What it is a part of, with its pyramid.
        channel : int
            Of the part.
        """
        level = choose_level(volume)
        if level is None:
            return None
        voxels = read_level(volume, part.channels[channel], level)
        z, y, x = volume.step(level)
        lateral = []
        for axis, step in ((1, y), (2, x)):
            start, stop = part.box.start[axis] / step, part.box.stop[axis] / step
            lateral.append(slice(math.floor(start), min(math.ceil(stop), voxels.shape[axis])))
        grid = Grid(part.view.planes_per_voxel, z, part.box.start.z)
        return cls(voxels[:, lateral[0], lateral[1]], (z, y, x), grid, part.shape.z)

    def means(self, borders: NDArray[np.int64]) -> _Floats:
        """Return the mean intensity of slabs, (slabs,), in the units of the volume.

        Parameters
        ----------
        borders : ndarray, (slabs + 1,) int64
            In planes of the part.
        """
        planes = self.voxels.mean(axis=(1, 2), dtype=np.float64)
        low, high = self._edges(borders)
        integral = np.concatenate([[0.0], np.cumsum(planes)])
        positions = np.arange(len(integral))
        area = np.interp(high, positions, integral) - np.interp(low, positions, integral)
        return np.asarray(area / (high - low))

    @property
    def background(self) -> float | None:
        """Intensity where there is nothing, or the least that there is.

        The first percentile of means over 2 × 4 × 4 isotropic voxels, without those that
        are 0, as where a deskewed volume was not acquired. None: all are.
        """
        low, high = self._edges(np.array([0, self.depth]))
        voxels = self.voxels[math.floor(low[0]) : math.ceil(high[0])]
        ratio = (self.grid.planes_per_voxel, 1.0, 1.0)
        for axis, wanted in enumerate(_AVERAGED):
            factor = round(wanted * ratio[axis] / self.steps[axis])
            voxels = _binned(voxels, axis, min(max(1, factor), voxels.shape[axis]))
        seen = voxels[np.isfinite(voxels) & (voxels != 0)]
        return float(np.percentile(seen, _BACKGROUND)) if seen.size else None

    def _edges(self, borders: NDArray[np.int64]) -> tuple[_Floats, _Floats]:
        """Return where slabs begin and end, in planes of the level."""
        at = borders.astype(np.float64)
        low, _ = self.grid.edges(at[:-1], 0, len(self.voxels))
        high, _ = self.grid.edges(at[1:], 0, len(self.voxels))
        return low, high


def _binned(voxels: NDArray[Any], axis: int, factor: int) -> NDArray[Any]:
    """Return means of neighbours along an axis; the rest that fills no bin is left out."""
    if factor == 1:
        return voxels
    count = voxels.shape[axis] // factor
    moved = np.moveaxis(voxels, axis, 0)[: count * factor]
    means = moved.reshape(count, factor, *moved.shape[1:]).mean(axis=1, dtype=np.float32)
    return np.moveaxis(means, 0, axis)
