"""A median filter in the planes of a source, against hot pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.processing.base import WrappedSource

_VOXELS_AT_ONCE = 1 << 14
"""Of a plane: the windows of so many fit into a core's cache."""


@dataclass(frozen=True)
class MedianSource(WrappedSource):
    """Each voxel is the median of the (2 R + 1)² voxels around it in its plane.

    The planes are those that the camera took: z is not mixed. Beyond the border a plane is
    mirrored, its outermost voxels repeated (scipy's mode ``"reflect"``).

    Parameters
    ----------
    inner : PlacedSource
    radius : int
        R, in voxels; 2 in Park et al. 2022.
    """

    radius: int

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        The box is read with a halo of R along y and x, less at the border of the image: there the
        filter mirrors what the whole image would mirror.
        """
        r = self.radius
        grown = Box(
            Zyx(box.start.z, box.start.y - r, box.start.x - r),
            Zyx(box.stop.z, box.stop.y + r, box.stop.x + r),
        )
        inside = grown.clipped(self.inner.shape[1:])
        missing = [
            (a - b, c - d)
            for a, b, c, d in zip(inside.start, grown.start, grown.stop, inside.stop, strict=True)
        ]
        data = np.pad(self.inner.read(channel, inside), missing, mode="symmetric")
        return plane_medians(data, r)


def plane_medians(data: NDArray[Any], radius: int) -> NDArray[Any]:
    """Return the medians of the square windows that fit into each plane.

    All voxels of some rows go through one sorting network together, which for a radius of 2 takes
    a twentieth of `scipy.ndimage.median_filter`'s time.

    Parameters
    ----------
    data : ndarray, (z, y + 2 radius, x + 2 radius)
    radius : int
        In voxels; a window has (2 radius + 1)² of them.

    Returns
    -------
    ndarray, (z, y, x), same dtype
    """
    edge = 2 * radius + 1
    planes, height, width = (
        n - m for n, m in zip(data.shape, (0, edge - 1, edge - 1), strict=True)
    )
    out = np.empty((planes, height, width), data.dtype)
    together = max(1, _VOXELS_AT_ONCE // width)
    network = _network(edge**2)
    for z, top in itertools.product(range(planes), range(0, height, together)):
        bottom = min(top + together, height)
        values = [
            data[z, top + dy : bottom + dy, dx : dx + width]
            for dy, dx in itertools.product(range(edge), repeat=2)
        ]
        for i, j in network:
            values[i], values[j] = (
                np.minimum(values[i], values[j]),
                np.maximum(values[i], values[j]),
            )
        out[z, top:bottom] = values[edge**2 // 2]
    return out


@cache
def _network(length: int) -> tuple[tuple[int, int], ...]:
    """Return the exchanges, in order, after which the middle one of `length` values is the median.

    They are those of Batcher's merge exchange sort (Knuth, The Art of Computer Programming,
    volume 3, algorithm 5.2.2M) that the middle depends on.
    """
    exchanges = []
    powers = [1 << i for i in range((length - 1).bit_length())]
    for p in reversed(powers):
        offset, distance = 0, p
        for q in reversed(powers):
            if q < p:
                break
            exchanges += [(i, i + distance) for i in range(length - distance) if i & p == offset]
            offset, distance = p, q - p
    needed, kept = {length // 2}, []
    for i, j in reversed(exchanges):
        if needed & {i, j}:
            needed |= {i, j}
            kept.append((i, j))
    return tuple(reversed(kept))
