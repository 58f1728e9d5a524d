"""Tilted light-sheet scans, brought to an orthogonal grid; the geometry is in `skew`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.processing.base import WrappedSource, require_square, rounded
from isosr_pipeline.processing.skew import Grid, Places, SampleGrid, Scan, ShearedGrid

_PLANES_AT_ONCE = 64
"""Sheared planes that are read together: each further one needs other rows."""


@dataclass(frozen=True)
class DeskewedSource(WrappedSource):
    """A source that was scanned along z with a tilted light sheet, on an orthogonal grid.

    Sheared, rows are interpolated linearly along y; rotated as well, along y and then between the
    planes, in one go. Voxels that were not acquired are 0.

    Parameters
    ----------
    inner : PlacedSource
        Its voxel size along z is the step of the scan, along y that of a pixel in the sheet.
    angle_degrees : float
        Between the light sheet and the scan; negative where the rows lean against the scan.
    rotate : bool
        Whether to turn the volume into the sample's axes (`SampleGrid`) from the camera's
        (`ShearedGrid`); its voxels are then isotropic, of the lateral size.

    Raises
    ------
    InputError
        When it is to be rotated, and voxels are not as large along y as along x.
    """

    angle_degrees: float
    rotate: bool

    def __post_init__(self) -> None:
        if self.rotate:
            require_square(self.inner, "--rotate")

    @cached_property
    def _grid(self) -> Grid:
        _, planes, rows, _ = self.inner.shape
        step, row, lateral = self.inner.voxel_size
        scan = Scan(planes, rows, step, row, self.angle_degrees)
        return SampleGrid(scan, lateral) if self.rotate else ShearedGrid(scan)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        channels, _, _, columns = self.inner.shape
        return (channels, *self._grid.shape, columns)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In µm, order z, y, x."""
        return (*self._grid.pitch, self.inner.voxel_size[2])

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel, in µm."""
        return (*self._grid.origin, self.inner.origin[2])

    @property
    def grain(self) -> Zyx:
        """What is decoded together, in voxels: rows run along x as in the scan."""
        return Zyx(1, 1, self.inner.grain.x)

    def acquired(self, box: Box) -> NDArray[np.bool_]:
        """Tell which rows of a box were acquired, the others being 0; returns (z, y)."""
        return self._places(box).acquired(self._grid.scan)

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        What is read of the inner source is the box around the scan's rows that it needs.
        """
        out = np.zeros(box.shape, self.dtype)
        planes, rows, columns = box.shape
        together = planes if self.rotate else _PLANES_AT_ONCE
        for slab in blocks(box, Zyx(together, rows, columns)):
            self._fill(out[slab.relative_to(box.start).slices], channel, slab)
        return out

    def _places(self, box: Box) -> Places:
        z, y, _ = (np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True))
        return self._grid.locate(z, y)

    def _fill(self, out: NDArray[Any], channel: int, box: Box) -> None:
        """Interpolate a box into an array of zeros."""
        places = self._places(box)
        acquired = places.acquired(self._grid.scan)
        if not acquired.any():
            return
        k, *j = (places_of[acquired] for places_of in places)
        start = Zyx(math.floor(k.min()), math.floor(np.min(j)), box.start.x)
        stop = Zyx(math.ceil(k.max()) + 1, math.ceil(np.max(j)) + 1, box.stop.x)
        data = self.inner.read(channel, Box(start, stop))
        planes, before, after = places
        for plane, inside, *position in zip(
            out, acquired, planes - start.z, before - start.y, after - start.y, strict=True
        ):
            values = _interpolated(data, Places(*(p[inside] for p in position)))
            plane[inside] = rounded(values, self.dtype)


def _interpolated(data: NDArray[Any], places: Places) -> NDArray[np.float32]:
    """Interpolate rows, linearly in each plane and between planes.

    Parameters
    ----------
    data : ndarray, (planes, rows, x)
    places : Places
        Of n voxels, counted from the first voxel of `data`.

    Returns
    -------
    ndarray, (n, x) float32
    """
    (below, above, share), *rows = (_neighbours(positions) for positions in places)
    near, far = (
        _mixed(data[plane, left], data[plane, right], share_of_right)
        for plane, (left, right, share_of_right) in zip((below, above), rows, strict=True)
    )
    return _mixed(near, far, share)


def _neighbours(
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the voxels before and after each position, and the share of the one after."""
    before = np.floor(positions)
    share = (positions - before).astype(np.float32)
    return before.astype(np.intp), np.ceil(positions).astype(np.intp), share[:, None]


def _mixed(a: NDArray[Any], b: NDArray[Any], share: NDArray[np.float32]) -> NDArray[np.float32]:
    one = np.float32(1)
    mixed: NDArray[np.float32] = a * (one - share) + b * share
    return mixed
