"""What cutting a volume into blocks costs: voxels computed and chunks decoded more than once.

The blocks of all regions form a grid. What a block computes or reads is a product of lengths along
the axes, so that sums over all blocks are products of sums along the axes: no list is longer than
an axis has blocks, however many there are in the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from isosr_models.restorers import LocalFunction
from isosr_pipeline.geometry import Box, Context, Zyx
from isosr_pipeline.isotropic import IsotropicView


class Side(NamedTuple):
    """A block as it is seen along one axis, in voxels.

    Parameters
    ----------
    start, stop : int
        What is read, with its halo; may reach beyond the volume.
    first, end : int
        What is kept of it, counted from `start`.
    """

    start: int
    stop: int
    first: int
    end: int


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of all regions of a restoration, for one channel.

    Parameters
    ----------
    sides : tuple of 3 sequences of Side
        Of the blocks along z, y, x; each triple of them is a block.
    """

    sides: tuple[Sequence[Side], Sequence[Side], Sequence[Side]]

    def __len__(self) -> int:
        return math.prod(map(len, self.sides))

    @property
    def largest(self) -> tuple[Zyx, Zyx]:
        """Longest block along each axis: what is kept, and what is read, in voxels."""
        kept = (max(s.end - s.first for s in axis) for axis in self.sides)
        read = (max(s.stop - s.start for s in axis) for axis in self.sides)
        return Zyx(*kept), Zyx(*read)

    def work(self, restorer: LocalFunction) -> int:
        """Return the multiply-adds of all blocks."""
        z, y, x = ([slice(s.first, s.end) for s in axis] for axis in self.sides)
        depth, height, width = ([s.stop - s.start for s in axis] for axis in self.sides)
        return restorer.work((z, y, x), (depth, height, width))

    def decoded(self, view: IsotropicView, chunk: Zyx) -> int:
        """Return the voxels that are decoded for all blocks: whole chunks, again for each block.

        Parameters
        ----------
        view : IsotropicView
            Of the volume that is read; at its border nothing is read beyond.
        chunk : Zyx
            Of that volume, in voxels.
        """
        sums = []
        for axis, sides in enumerate(self.sides):
            length = chunk[axis]
            found = (view.measured(_thin(Zyx(0, 0, 0), axis, s.start, s.stop)).box for s in sides)
            spans = ((box.start[axis], box.stop[axis]) for box in found)
            sums.append(whole_chunks(spans, length))
        return math.prod(sums)


def whole_chunks(spans: Iterable[tuple[int, int]], length: int) -> int:
    """Return what is decoded along an axis: whole chunks, again for each span.

    Parameters
    ----------
    spans : iterable of tuple of 2 ints
        Where each begins and ends, in voxels.
    length : int
        Of a chunk.
    """
    return sum(-(-b // length) * length - a // length * length for a, b in spans)


class Cut(Protocol):
    """How a region is cut, such as a `Scheme`."""

    def blocks(self, region: Box) -> Iterator[Context]:
        """Cut a region, in voxels of the isotropic grid, into blocks with their halo."""
        ...


def block_grid(scheme: Cut, box: Box, region: Zyx) -> BlockGrid:
    """Find the blocks of all regions.

    Parameters
    ----------
    scheme : Cut
        Its blocks of a region form a grid.
    box : Box
        What is restored, in voxels of the isotropic grid.
    region : Zyx
        Shape of the regions that it is cut into, in voxels.
    """
    z, y, x = (_sides(scheme, box, region, axis) for axis in range(3))
    return BlockGrid((z, y, x))


def _sides(scheme: Cut, box: Box, region: Zyx, axis: int) -> list[Side]:
    """Find the blocks along an axis, in regions one voxel thick along the others."""
    found: list[Side] = []
    end, step = box.stop[axis], region[axis]
    for start in range(box.start[axis], end, step):
        thin = _thin(box.start, axis, start, min(start + step, end))
        # Where blocks overlap, several along the other axes hold that voxel.
        found += dict.fromkeys(_side(block, axis) for block in scheme.blocks(thin))
    return found


def _side(block: Context, axis: int) -> Side:
    read, keep = block.read, block.keep
    return Side(read.start[axis], read.stop[axis], keep.start[axis], keep.stop[axis])


def _thin(corner: Zyx, axis: int, start: int, stop: int) -> Box:
    """Return a box that is as long as given along an axis, and one voxel thick along the others."""
    starts, stops = list(corner), [a + 1 for a in corner]
    starts[axis], stops[axis] = start, stop
    return Box(Zyx(*starts), Zyx(*stops))
