"""A median filter in the planes of a source, against hot pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from scipy import ndimage

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.processing.base import WrappedSource


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
        ).clipped(self.shape[1:])
        size = 2 * r + 1
        data = self.inner.read(channel, grown)
        filtered: NDArray[Any] = ndimage.median_filter(data, (1, size, size), mode="reflect")
        return filtered[box.relative_to(grown.start).slices]
