"""A volume seen on the isotropic grid: z resampled to the lateral voxel size, borders reflected.

Nothing is stored: the planes that a box needs are read and interpolated when it is asked for, so
that a box is the same whatever other boxes are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, reflect

_TOLERANCE = 1e-3
MAX_ANISOTROPY = 100.0
"""How many times as long along z as along x voxels may be, or the reverse."""


class Sized(Protocol):
    """What has channels, and voxels of a known size, though they may not be there yet."""

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


class Placed(Sized, Protocol):
    """What has a place, too, and labels for its channels."""

    @property
    def channels(self) -> Sequence[str]:
        """Labels, one for each channel."""
        ...

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in µm, order z, y, x."""
        ...


class Image(Sized, Protocol):
    """What can be seen on the isotropic grid: a volume, or a source whose voxel size is known."""

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x)."""
        ...


class Grid(Protocol):
    """A volume on an isotropic grid, or a part of one."""

    @property
    def shape(self) -> Zyx:
        """Lengths in voxels."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in it; returns (z, y, x)."""
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

    def measured(self, box: Box) -> Measured:
        """Find what a box of the grid is made from.

        Parameters
        ----------
        box : Box
            May reach beyond the volume, which is reflected there.
        """
        z, y, x = (
            reflect(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)
        )
        depth = self.volume.shape[1]
        below, share = locate(z, self.planes_per_voxel, depth)
        start = Zyx(int(below.min()), int(y.min()), int(x.min()))
        last = int((below + (share > 0)).max())
        stop = Zyx(last + 1, int(y.max()) + 1, int(x.max()) + 1)
        return Measured(Box(start, stop), below - start.z, share, y - start.y, x - start.x)

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
        found = self.measured(box)
        return found.resampled(self.volume.read(channel, found.box))


@dataclass(frozen=True)
class Part:
    """A box of some channels of a view, with positions of its own: what a restored volume shows.

    Parameters
    ----------
    view : IsotropicView
    box : Box
        Of the view's grid, in voxels.
    channels : sequence of int
        Those of the view that channels of the part are.
    """

    view: IsotropicView
    box: Box
    channels: Sequence[int]

    @property
    def shape(self) -> Zyx:
        """Lengths in voxels."""
        return self.box.shape

    def read(self, channel: int, box: Box) -> NDArray[np.float32]:
        """Read a box, counted from the start of the part; see `IsotropicView.read`."""
        return self.view.read(self.channels[channel], box.shifted(self.box.start))


class Measured(NamedTuple):
    """What a box of the isotropic grid is made from.

    Parameters
    ----------
    box : Box
        Of the volume, in measured voxels.
    below : ndarray, (z,) intp
        For each plane of the grid, the measured one at or below it; counted from the box.
    share : ndarray, (z,) float32
        How far it lies from there to the next one: at least 0, below 1.
    rows, columns : ndarray, (y,) and (x,) intp
        Where each row and column of the grid lies in the box; not a run at the volume's border.
    """

    box: Box
    below: NDArray[np.intp]
    share: NDArray[np.float32]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def resampled(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        """Make the box of the grid.

        Parameters
        ----------
        voxels : ndarray, (z, y, x)
            What was measured in `box`.

        Returns
        -------
        ndarray, (z, y, x) float32
        """
        data = voxels.astype(np.float32)
        planes = data if is_run(self.below) else data[self.below]
        if self.share.any():
            share = self.share[:, None, None]
            above = data[self.below + (self.share > 0)]
            planes = planes[: len(share)] * (1 - share) + above * share
        for axis, indices in ((1, self.rows), (2, self.columns)):
            if not is_run(indices):
                planes = np.take(planes, indices, axis=axis)
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
        How far it lies from there to the next one: at least 0, below 1.
    """
    position = z * planes_per_voxel
    below = np.minimum(position.astype(np.intp), depth - 1)
    share = (position - below).astype(np.float32)
    # By rounding, the last plane of the grid may lie beyond the last measured one.
    share[below == depth - 1] = 0
    return below, share


def is_run(indices: NDArray[np.intp]) -> bool:
    """Tell whether indices count up from zero, so that nothing need be gathered."""
    return bool((indices == np.arange(len(indices))).all())
