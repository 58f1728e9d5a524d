"""A source resampled to isotropic voxels, for those who want them stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.processing.base import TOLERANCE, WrappedSource, require_square, rounded

_PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class _Acquired(WrappedSource):
    """1 where the inner source was acquired, and 0 elsewhere."""

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        return np.broadcast_to(self.inner.acquired(box)[:, :, None], box.shape)


@dataclass(frozen=True)
class _Read(WrappedSource):
    """A source of which a box has been read, so that its parts need not be read again.

    Parameters
    ----------
    start : Zyx
        Of the box.
    data : ndarray, (z, y, x)
    """

    start: Zyx
    data: NDArray[Any]

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        return self.data[box.relative_to(self.start).slices]


@dataclass(frozen=True)
class IsotropicSource(WrappedSource):
    """Planes interpolated linearly, so that voxels are as large along z as along y and x.

    The grid is that of `IsotropicView`, which training and restoration read.

    Parameters
    ----------
    inner : PlacedSource

    Raises
    ------
    InputError
        When the voxels are not as large along y as along x.
    """

    def __post_init__(self) -> None:
        require_square(self.inner, "--isotropic")

    @cached_property
    def _view(self) -> IsotropicView:
        return IsotropicView(self.inner)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return (self.inner.shape[0], *self._view.shape)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        return self._view.voxel_size

    @property
    def grain(self) -> Zyx:
        """What is decoded together, in voxels of the isotropic grid."""
        step = self.inner.voxel_size[0] / self._view.voxel_size[0]
        return self.inner.grain._replace(z=math.ceil(self.inner.grain.z * step))

    def acquired(self, box: Box) -> NDArray[np.bool_]:
        """Tell which rows of a box are made of acquired ones only; returns (z, y)."""
        column = Box(box.start, Zyx(box.stop.z, box.stop.y, box.start.x + 1))
        return IsotropicView(_Acquired(self.inner)).read(0, column)[:, :, 0] > 1 - TOLERANCE

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        step = self._view.planes_per_voxel
        last = min(math.ceil((box.stop.z - 1) * step) + 2, self.inner.shape[1])
        start = box.start._replace(z=max(0, math.floor(box.start.z * step) - 1))
        measured = Box(start, box.stop._replace(z=last))
        view = IsotropicView(_Read(self.inner, start, self.inner.read(channel, measured)))
        out = np.empty(box.shape, self.dtype)
        # Floats take twice the memory and more: few planes at a time.
        for slab in blocks(box, box.shape._replace(z=_PLANES_AT_ONCE)):
            out[slab.relative_to(box.start).slices] = rounded(view.read(0, slab), self.dtype)
        return out
