"""What processing steps have in common: their place in space, and rounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.base import Source

TOLERANCE = 1e-3
"""Voxel sizes that differ by less than this share are taken as equal."""


class PlacedSource(Source, Protocol):
    """A source whose voxels have a known size and place."""

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        ...

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in µm, order z, y, x; that of the first acquired one is 0."""
        ...

    def acquired(self, box: Box) -> NDArray[np.bool_]:
        """Tell which rows of a box were acquired, the others being 0; returns (z, y)."""
        ...


_Inner = TypeVar("_Inner", bound=Source)


@dataclass(frozen=True)
class ForwardingSource(Generic[_Inner]):
    """What any source around a source takes from it: all but its voxels' size and place.

    Parameters
    ----------
    inner : Source
    """

    inner: _Inner

    @property
    def path(self) -> Path:
        """File or folder."""
        return self.inner.path

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return self.inner.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the voxels."""
        return self.inner.dtype

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels, one for each channel."""
        return self.inner.channels

    @property
    def grain(self) -> Zyx:
        """What is decoded together, in voxels."""
        return self.inner.grain

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        return self.inner.read(channel, box)


@dataclass(frozen=True)
class WrappedSource(ForwardingSource[PlacedSource]):
    """A step around a source, which leaves alone all that it doesn't define itself.

    Parameters
    ----------
    inner : PlacedSource
    """

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        return self.inner.voxel_size

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel, in µm."""
        return self.inner.origin

    def acquired(self, box: Box) -> NDArray[np.bool_]:
        """Tell which rows of a box were acquired; returns (z, y)."""
        return self.inner.acquired(box)


def rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Bring values that lie in the range of a dtype to it; integers are rounded to the nearest."""
    return (np.rint(values) if dtype.kind in "ui" else values).astype(dtype)


def require_square(source: PlacedSource, what_for: str) -> None:
    """Refuse voxels that are not as large along y as along x.

    Raises
    ------
    InputError
        Naming both sizes.
    """
    _, y, x = source.voxel_size
    if abs(y - x) > TOLERANCE * x:
        raise InputError(
            f"{source.path}: voxels are {y:g} µm along y and {x:g} µm along x, and must be square "
            f"for {what_for}; mend it with --voxel-size, or leave {what_for} out"
        )
