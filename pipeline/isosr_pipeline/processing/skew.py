"""Where the voxels of a tilted light-sheet scan lie, and the grids that they are brought to.

All happens in the plane of two sample axes: s along the scan, and d across it, the depth. A row of
the camera is a point in that plane; x, along the rows, is the same on all grids::

      o──────▶ s (scan)        camera plane k, row j:   s = k·step + j·row·cos(angle)
      │╲ ╲ ╲ ╲                                          d = j·row·sin(|angle|)
      │ ╲ ╲ ╲ ╲  light sheets
      ▼  ╲ ╲ ╲ ╲               With a negative angle the rows lean against the scan:
      d                        s = k·step - j·row·cos(angle).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

_SNAP = 1e-6
"""Positions this near to a voxel, in voxels, are on it: float rounding moves no border."""


@dataclass(frozen=True)
class Scan:
    """The geometry of an acquisition.

    Parameters
    ----------
    planes, rows : int
        Numbers of planes along the scan, and of the camera's rows in each.
    step : float
        Between planes along the scan, in µm.
    row : float
        Size of a camera pixel in the light sheet, in µm.
    angle : float
        Between the light sheet and the scan, in degrees; see the module.
    """

    planes: int
    rows: int
    step: float
    row: float
    angle: float

    @property
    def advance(self) -> float:
        """From one row to the next along the scan, in µm; negative if rows lean against it."""
        return math.copysign(self.row * math.cos(math.radians(self.angle)), self.angle)

    @property
    def depth(self) -> float:
        """From one row to the next across the scan, in µm."""
        return self.row * abs(math.sin(math.radians(self.angle)))

    @property
    def shift(self) -> float:
        """From one plane to the next along the light sheet, in rows; signed as `advance`."""
        return self.step * self.advance / self.row**2


class Places(NamedTuple):
    """Where in a scan output voxels lie; fractions are between voxels.

    Parameters
    ----------
    planes : ndarray, (z, y)
    before, after : ndarray, (z, y)
        Rows in the acquired planes before and after.
    """

    planes: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    def acquired(self, scan: Scan) -> NDArray[np.bool_]:
        """Tell which lie among the scan's planes and rows."""
        inside = (self.planes >= 0) & (self.planes <= scan.planes - 1)
        for rows in (self.before, self.after):
            inside &= (rows >= 0) & (rows <= scan.rows - 1)
        return inside


class Grid(Protocol):
    """Planes z and rows y of an output, in the plane of s and d."""

    @property
    def scan(self) -> Scan:
        """The acquisition."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of planes and rows."""
        ...

    @property
    def pitch(self) -> tuple[float, float]:
        """Between planes and between rows, in µm."""
        ...

    @property
    def origin(self) -> tuple[float, float]:
        """Of the first plane and row in µm, from the first acquired row, along z and y."""
        ...

    def locate(self, z: NDArray[np.intp], y: NDArray[np.intp]) -> Places:
        """Return where in the scan output voxels lie.

        Parameters
        ----------
        z, y : ndarray, (n,) and (m,)
            Planes and rows of this grid.
        """
        ...


@dataclass(frozen=True)
class ShearedGrid:
    """The axes of the camera: z along the light sheet's normal, y along its rows.

    Every camera plane stays a plane; it is only moved along y, so that the volume's XY planes stay
    the sharp ones.

    Parameters
    ----------
    scan : Scan
    """

    scan: Scan

    @cached_property
    def _first(self) -> int:
        """The lowest row, counted from the first of plane 0."""
        return -self._added if self.scan.shift < 0 else 0

    @cached_property
    def _added(self) -> int:
        return math.ceil((self.scan.planes - 1) * abs(self.scan.shift) - _SNAP)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of planes and rows."""
        return self.scan.planes, self.scan.rows + self._added

    @property
    def pitch(self) -> tuple[float, float]:
        """Between planes and between rows, in µm."""
        return self.scan.step * self.scan.depth / self.scan.row, self.scan.row

    @property
    def origin(self) -> tuple[float, float]:
        """Of the first plane and row, in µm."""
        return 0.0, self._first * self.scan.row

    def locate(self, z: NDArray[np.intp], y: NDArray[np.intp]) -> Places:
        """Return where in the scan output voxels lie; see `Grid.locate`."""
        planes = np.broadcast_to(z[:, None].astype(np.float64), (len(z), len(y)))
        rows = _snapped(y + self._first - planes * self.scan.shift)
        return Places(planes, rows, rows)


@dataclass(frozen=True)
class SampleGrid:
    """The axes of the sample: z across the scan, y along it, both in steps of one size.

    z counts from the last camera row to the first: with y along the scan, this is the acquired
    volume turned, and not its mirror image.

    Parameters
    ----------
    scan : Scan
    size : float
        Between planes and between rows, in µm.
    """

    scan: Scan
    size: float

    @cached_property
    def _first(self) -> int:
        """The lowest position along the scan, in steps of this grid."""
        lean = min(0.0, (self.scan.rows - 1) * self.scan.advance)
        return math.floor(lean / self.size + _SNAP)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of planes and rows."""
        scan = self.scan
        deepest = (scan.rows - 1) * scan.depth
        last = (scan.planes - 1) * scan.step + max(0.0, (scan.rows - 1) * scan.advance)
        return (
            math.ceil(deepest / self.size - _SNAP) + 1,
            math.ceil(last / self.size - _SNAP) - self._first + 1,
        )

    @property
    def pitch(self) -> tuple[float, float]:
        """Between planes and between rows, in µm."""
        return self.size, self.size

    @property
    def origin(self) -> tuple[float, float]:
        """Of the first plane and row, in µm."""
        return -(self.shape[0] - 1) * self.size, self._first * self.size

    def locate(self, z: NDArray[np.intp], y: NDArray[np.intp]) -> Places:
        """Return where in the scan output voxels lie; see `Grid.locate`.

        A voxel between two planes is interpolated along their normal, the shortest way; only where
        that leaves the acquired rows, along the scan.
        """
        scan = self.scan
        depth = (self.shape[0] - 1 - z[:, None]) * self.size
        row = _snapped((depth / scan.depth).astype(np.float64))
        along = (y + self._first) * self.size
        planes = _snapped((along - row * scan.advance) / scan.step)
        along_scan = Places(planes, *(np.broadcast_to(row, planes.shape),) * 2)
        share = planes - np.floor(planes)
        before = _snapped(row + share * scan.shift)
        after = _snapped(before - np.where(share > 0, scan.shift, 0))
        along_normal = Places(planes, before, after)
        normal = along_normal.acquired(scan)
        return Places(
            *(np.where(normal, a, b) for a, b in zip(along_normal, along_scan, strict=True))
        )


def _snapped(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.rint(positions)
    return np.where(np.abs(positions - nearest) < _SNAP, nearest, positions)
