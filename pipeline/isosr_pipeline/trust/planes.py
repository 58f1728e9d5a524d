"""Where measured planes lie along z of a restored volume, and what it shows there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx

_ROUNDING = 1e-3
"""Of a voxel."""

MARGIN = 2
"""Voxels around a plane between which `sampling` interpolates."""


@dataclass(frozen=True)
class Planes:
    """The measured planes that lie in a restored volume.

    Parameters
    ----------
    step : float
        Their distance, in voxels of the isotropic grid.
    offset : int
        Where the restored volume begins on the isotropic grid of the measured one.
    length : int
        Voxels of the restored volume along z.
    count : int
        Planes of the measured volume.
    """

    step: float
    offset: int
    length: int
    count: int

    @classmethod
    def of_part(cls, planes_per_voxel: float, part: Box, count: int) -> Planes:
        """Return those that lie in a part of the isotropic grid of `count` measured ones."""
        return cls(1 / planes_per_voxel, part.start.z, part.shape.z, count)

    def within(self, start: int, stop: int) -> range:
        """Return the planes whose centres lie in voxels of the restored volume.

        Parameters
        ----------
        start, stop : int
            ``start - 0.5`` up to, not with, ``stop - 0.5``, and none beyond the last voxel.
        """
        last = min(stop - 0.5, self.length - 1 + _ROUNDING)
        first = max(start - 0.5, -_ROUNDING)
        low = max(0, math.ceil((first + self.offset) / self.step))
        high = min(self.count, math.ceil((last + self.offset) / self.step))
        return range(low, max(low, high))

    def positions(self, planes: Sequence[int]) -> NDArray[np.float64]:
        """Return where planes lie, in voxels of the restored volume."""
        return np.asarray(planes, np.float64) * self.step - self.offset


def sampling(positions: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float32]:
    """Return the matrix that takes voxels along z to places between them.

    By cubic convolution (Keys 1981), which blurs far less than linear interpolation what has been
    blurred already; a place that is a voxel is that voxel.

    Parameters
    ----------
    positions : ndarray, (n,) float64
    start, stop : int
        The range of voxels that are there; it must hold `MARGIN` of them on both sides of each
        place that lies between voxels.

    Returns
    -------
    ndarray, (n, stop - start) float32
    """
    distance = np.abs(positions[:, None] - np.arange(start, stop))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return np.asarray(weights, np.float32)


def at_planes(
    blurred: NDArray[np.float32], positions: NDArray[np.float64], box: Box
) -> NDArray[np.float32]:
    """Bring a blurred box to places between its voxels along z.

    Parameters
    ----------
    blurred : ndarray, (z, y, x) float32
        The box, and `MARGIN` voxels before and behind it along z.
    positions : ndarray, (planes,) float64
    box : Box

    Returns
    -------
    ndarray, (planes, y, x) float32
    """
    weights = sampling(positions, box.start.z - MARGIN, box.stop.z + MARGIN)
    return np.asarray(np.tensordot(weights, blurred, axes=1), np.float32)


class _Readable(Protocol):
    def read(self, channel: int, box: Box) -> NDArray[Any]: ...


@dataclass(frozen=True)
class SampledPlanes:
    """A restored volume at the places of measured planes, as an image of the measured voxels.

    Seen on the isotropic grid, it is what the microscope's distance of planes would leave of it.

    Parameters
    ----------
    restored : object with read
        Level 0 of the restored volume.
    path : Path
        Of the restored volume.
    planes : Planes
    shape : tuple of 4 ints
        Channels, measured planes, and the restored volume's rows and columns.
    voxel_size : tuple of 3 floats
        Of the measured volume, in µm.
    """

    restored: _Readable
    path: Path
    planes: Planes
    shape: tuple[int, int, int, int]
    voxel_size: tuple[float, float, float]

    def read(self, channel: int, box: Box) -> NDArray[np.float32]:
        """Read a box of planes; beyond the restored volume its outermost planes go on."""
        last = self.planes.length - 1
        places = self.planes.positions(range(box.start.z, box.stop.z)).clip(0, last)
        first, stop = int(places.min()), min(last, math.ceil(places.max())) + 1
        around = Box(box.start._replace(z=first), box.stop._replace(z=stop))
        voxels = self.restored.read(channel, around).astype(np.float32)
        below = np.minimum(places.astype(np.intp), last) - first
        share = (places - first - below).astype(np.float32)[:, None, None]
        above = np.minimum(below + 1, len(voxels) - 1)
        return np.asarray(voxels[below] * (1 - share) + voxels[above] * share, np.float32)


def cells_of(shape: Zyx, cell: Zyx) -> Zyx:
    """Return how many cells hold a volume."""
    return Zyx(*(-(-n // c) for n, c in zip(shape, cell, strict=True)))
