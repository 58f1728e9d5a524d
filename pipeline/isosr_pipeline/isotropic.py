"""A volume seen on the isotropic grid: z resampled to the lateral voxel size, borders reflected.

Nothing is stored: the planes that a box needs are read and interpolated when it is asked for, so
that a box is the same whatever other boxes are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, reflect

_TOLERANCE = 1e-3
MAX_ANISOTROPY = 100.0
"""How many times as long along z as along x voxels may be, or the reverse."""


class Image(Protocol):
    """What can be seen on the isotropic grid: a volume, or a source whose voxel size is known."""

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x)."""
        ...


class IsotropicView:
    """A volume on the grid whose voxels are as large along z as along y and x.

    Plane k of the grid lies at ``k`` lateral voxel sizes from the first measured plane. Where the
    volume's voxels are isotropic already, the view is the volume itself.

    Parameters
    ----------
    volume : Image
        A `Volume`, or a source.

    Attributes
    ----------
    shape : Zyx
        Of the grid, in voxels.
    voxel_size : tuple of 3 floats
        Of the grid, in µm.
    planes_per_voxel : float
        Measured planes in a voxel of the grid.

    Raises
    ------
    InputError
        When the voxels are not as large along y as along x, or far from as large along z.
    """

    def __init__(self, volume: Image) -> None:
        z, y, x = volume.voxel_size
        if abs(y - x) > _TOLERANCE * x:
            raise InputError(
                f"{volume.path}: voxels are {y:g} µm along y and {x:g} µm along x, and must be "
                "square in the sharp planes; resample the source, or mend --voxel-size"
            )
        if not 1 / MAX_ANISOTROPY <= z / x <= MAX_ANISOTROPY:
            raise InputError(
                f"{volume.path}: voxels are {z:g} µm along z and {x:g} µm along x, and one may be "
                f"{MAX_ANISOTROPY:g} times the other at most; mend --voxel-size"
            )
        depth, height, width = volume.shape[1:]
        self.volume = volume
        self._resampled = abs(z - x) > _TOLERANCE * x
        self.planes_per_voxel = x / z if self._resampled else 1.0
        planes = int((depth - 1) / self.planes_per_voxel + _TOLERANCE) + 1
        self.shape = Zyx(planes, height, width)
        self.voxel_size = (x, y, x) if self._resampled else volume.voxel_size

    def read(self, channel: int, box: Box) -> NDArray[np.float32]:
        """Read a box of the grid.

        Parameters
        ----------
        channel : int
        box : Box
            May reach beyond the volume, which is reflected there.

        Returns
        -------
        ndarray, (z, y, x) float32
            Intensities as stored.
        """
        z, y, x = (
            reflect(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)
        )
        depth = self.volume.shape[1]
        below, weight = locate(z, self.planes_per_voxel, depth)
        above = np.where(weight > 0, np.minimum(below + 1, depth - 1), below)
        start = Zyx(int(below.min()), int(y.min()), int(x.min()))
        stop = Zyx(int(above.max()) + 1, int(y.max()) + 1, int(x.max()) + 1)
        data = self.volume.read(channel, Box(start, stop)).astype(np.float32)
        planes = data[: len(z)] if _is_run(below, start.z) else data[below - start.z]
        if weight.any():
            share = weight[:, None, None]
            planes = planes * (1 - share) + data[above - start.z] * share
        for axis, (indices, first) in enumerate(((y, start.y), (x, start.x)), start=1):
            if not _is_run(indices, first):
                planes = np.take(planes, indices - first, axis=axis)
        return planes


def locate(
    z: NDArray[np.intp], planes_per_voxel: float, depth: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find planes of the isotropic grid among the measured ones.

    Parameters
    ----------
    z : ndarray, (n,) intp
        Planes of the grid.
    planes_per_voxel : float
        Of an `IsotropicView`.
    depth : int
        Measured planes of the volume.

    Returns
    -------
    below : ndarray, (n,) intp
        For each, the measured plane at or below it.
    share : ndarray, (n,) float32
        How far it lies from there to the next one: at least 0, below 1. By rounding, the last
        plane of the grid may lie beyond the last measured one.
    """
    position = z * planes_per_voxel
    below = np.minimum(position.astype(np.intp), depth - 1)
    return below, (position - below).astype(np.float32)


def _is_run(indices: NDArray[np.intp], first: int) -> bool:
    """Tell whether indices count up from the first, so that nothing need be gathered."""
    return bool((indices == np.arange(first, first + len(indices))).all())
