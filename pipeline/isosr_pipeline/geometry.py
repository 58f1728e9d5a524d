"""Boxes, regions and blocks: which voxels are read, computed and written together.

All lengths are in voxels and in the order z, y, x. Everything here is arithmetic on integers; no
list grows with the volume.

::

      read = block + halo                 written = block
      ┌───────────────┐
      │ halo          │   `context` grows a block by the halo and snaps what is read to the
      │   ┌───────┐   │   restorer's stride; `Context.keep` cuts the block back out of the result.
      │   │ block │   │   Beyond the volume's border the volume is reflected (`reflect`).
      │   └───────┘   │
      └───────────────┘
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

AXES = ("z", "y", "x")


class Zyx(NamedTuple):
    """Three lengths or positions in voxels, or three voxel sizes in µm."""

    z: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= voxel < stop``; it may reach beyond a volume.

    Parameters
    ----------
    start, stop : Zyx
        In voxels.
    """

    start: Zyx
    stop: Zyx

    @classmethod
    def whole(cls, shape: tuple[int, int, int]) -> Box:
        """Return the box of a whole volume of the given shape."""
        return cls(Zyx(0, 0, 0), Zyx(*shape))

    @property
    def shape(self) -> Zyx:
        """Lengths in voxels."""
        return Zyx(*(b - a for a, b in zip(self.start, self.stop, strict=True)))

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array with axes z, y, x."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grown(self, margin: int) -> Box:
        """Return the box with a margin on all six sides."""
        return Box(Zyx(*(a - margin for a in self.start)), Zyx(*(b + margin for b in self.stop)))

    def clipped(self, shape: tuple[int, int, int]) -> Box:
        """Return the part that lies in a volume of the given shape."""
        return Box(
            Zyx(*(max(a, 0) for a in self.start)),
            Zyx(*(min(b, n) for b, n in zip(self.stop, shape, strict=True))),
        )

    def relative_to(self, origin: tuple[int, int, int]) -> Box:
        """Return the same box in the coordinates of an array that begins at `origin`."""
        return Box(
            Zyx(*(a - o for a, o in zip(self.start, origin, strict=True))),
            Zyx(*(b - o for b, o in zip(self.stop, origin, strict=True))),
        )

    def shifted(self, by: tuple[int, int, int]) -> Box:
        """Return the box moved along each axis; the reverse of `relative_to`."""
        return Box(
            Zyx(*(a + s for a, s in zip(self.start, by, strict=True))),
            Zyx(*(b + s for b, s in zip(self.stop, by, strict=True))),
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{axis} {a}:{b}" for axis, a, b in zip(AXES, self.start, self.stop, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Region:
    """What one task writes: whole shards of one channel.

    Parameters
    ----------
    index : int
        Its number in the `RegionGrid`.
    channel : int
    box : Box
        In voxels of the level that is written.
    """

    index: int
    channel: int
    box: Box

    def __str__(self) -> str:
        return f"region {self.index} (channel {self.channel}, {self.box})"


@dataclass(frozen=True, slots=True)
class RegionGrid:
    """All regions of an array, numbered; made on demand, so that a million cost nothing.

    Parameters
    ----------
    shape : tuple of 4 ints
        Of the array: c, z, y, x.
    region : Zyx
        Shape of a region; those at the far border are cut off by it.
    """

    shape: tuple[int, int, int, int]
    region: Zyx

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Number of regions along c, z, y, x."""
        z, y, x = (-(-n // r) for n, r in zip(self.shape[1:], self.region, strict=True))
        return self.shape[0], z, y, x

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Region:
        if not 0 <= index < len(self):
            raise IndexError(f"region {index} of {len(self)}")
        channel, *cell = (int(i) for i in np.unravel_index(index, self.counts))
        start = Zyx(*(i * r for i, r in zip(cell, self.region, strict=True)))
        stop = Zyx(*(a + r for a, r in zip(start, self.region, strict=True)))
        z, y, x = self.shape[1:]
        return Region(index, channel, Box(start, stop).clipped((z, y, x)))

    def __iter__(self) -> Iterator[Region]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, slots=True)
class Context:
    """What is read to compute a block, and where the block lies in it.

    Parameters
    ----------
    read : Box
        The block with its halo, on the restorer's stride; may reach beyond the volume.
    keep : Box
        The block, in the coordinates of `read`.
    """

    read: Box
    keep: Box

    @property
    def kept(self) -> Box:
        """The block, in the coordinates of the volume."""
        return self.keep.shifted(self.read.start)


def blocks(region: Box, block: Zyx) -> Iterator[Box]:
    """Cut a region into blocks of at most the given shape, in C order."""
    starts = (range(a, b, n) for a, b, n in zip(region.start, region.stop, block, strict=True))
    for origin in itertools.product(*starts):
        stop = (min(o + n, b) for o, n, b in zip(origin, block, region.stop, strict=True))
        yield Box(Zyx(*origin), Zyx(*stop))


def context(block: Box, halo: int, stride: int) -> Context:
    """Grow a block by its halo, and further to where the restorer's stride begins and ends.

    Parameters
    ----------
    block : Box
    halo : int
        At least the radius of the restorer's receptive field, in voxels.
    stride : int
        Positions of the whole volume that are multiples of it are where pooling cells begin.
    """
    start = Zyx(*((a - halo) // stride * stride for a in block.start))
    stop = Zyx(*(-(-(b + halo) // stride) * stride for b in block.stop))
    return Context(Box(start, stop), block.relative_to(start))


def reflect(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Map positions beyond the border of an axis to those that they mirror.

    The outermost voxel is the mirror and is not repeated: ``-1`` maps to ``1``. Positions further
    out than the axis is long are reflected again.

    Parameters
    ----------
    start, stop : int
        Range of positions, in voxels; may be negative or beyond `length`.
    length : int
        Of the axis, in voxels.

    Returns
    -------
    ndarray, (stop - start,) intp
        Positions in ``range(length)``.
    """
    if length == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (length - 1)
    phase = np.arange(start, stop, dtype=np.intp) % period
    return np.minimum(phase, period - phase)
