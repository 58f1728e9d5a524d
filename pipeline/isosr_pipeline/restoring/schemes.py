"""Schemes: how a region is cut into blocks, and how what they give becomes the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_models.layers import Statistics
from isosr_pipeline.errors import HopelessError
from isosr_pipeline.geometry import Box, Context, Zyx, blocks, context
from isosr_pipeline.seams import Borders, block_borders, core_borders

CORE, TRIMMED, OVERLAP = 120, 20, 30
"""Of the publication, in voxels: what a block gives, what is cut off on each side of what the
network sees, and by how much neighbours overlap."""

_SMALLEST_BLOCK = 32


class Scheme(Protocol):
    """How a region is restored block by block."""

    @property
    def averages(self) -> bool:
        """Whether blocks overlap, and are averaged."""
        ...

    @property
    def statistics(self) -> Statistics:
        """What normalises the network's features."""
        ...

    def blocks(self, region: Box) -> Iterator[Context]:
        """Cut a region, in voxels of the isotropic grid, into blocks with their halo."""
        ...

    def borders(self, box: Box, region: Zyx) -> Borders:
        """Return where regions and blocks meet in the result.

        Parameters
        ----------
        box : Box
            What is restored, in voxels of the isotropic grid.
        region : Zyx
            Shape of the regions that it is cut into, in voxels.
        """
        ...

    def halved(self, block: Context) -> list[Context]:
        """Cut a block in two that does not fit the memory.

        Raises
        ------
        HopelessError
            When it can't be smaller.
        """
        ...


@dataclass(frozen=True)
class ExactScheme:
    """Blocks with a halo that holds all they depend on: the result is that of the whole at once.

    Parameters
    ----------
    block : Zyx
        What the network gives at once, in voxels.
    halo, stride : int
        See `context`.
    """

    block: Zyx
    halo: int
    stride: int

    averages = False
    statistics: ClassVar[Statistics] = "frozen"

    def blocks(self, region: Box) -> Iterator[Context]:
        """Cut a region into blocks; see `Scheme`."""
        return (context(block, self.halo, self.stride) for block in blocks(region, self.block))

    def borders(self, box: Box, region: Zyx) -> Borders:
        """Return where regions and blocks meet; see `Scheme`."""
        return block_borders(box.shape, region, self.block)

    def halved(self, block: Context) -> list[Context]:
        """Cut a block in two along its longest axis; see `Scheme`."""
        kept = block.kept
        longest = max(kept.shape)
        if longest <= _SMALLEST_BLOCK:
            raise HopelessError(
                f"not even a block of {longest} voxels with its halo of {self.halo} fits the "
                "memory; give fewer --workers, or a device with more memory"
            )
        axis = kept.shape.index(longest)
        half = kept.shape._replace(**{Zyx._fields[axis]: -(-longest // 2)})
        return [context(part, self.halo, self.stride) for part in blocks(kept, half)]


@dataclass(frozen=True)
class PaperScheme:
    """Blocks as in the publication: 160³ voxels, of which the inner 120³ overlap and are averaged.

    The network normalises each by its own statistics, so that the result depends on where blocks
    lie. It does not depend on regions: cores that reach into several are computed for each.

    Parameters
    ----------
    shape : Zyx
        Of the volume on the isotropic grid.
    """

    shape: Zyx

    averages = True
    statistics: ClassVar[Statistics] = "block"

    def blocks(self, region: Box) -> Iterator[Context]:
        """Return the blocks whose cores reach into a region, cut to it; see `Scheme`."""
        z, y, x = (
            _cores(a, b, n) for a, b, n in zip(region.start, region.stop, self.shape, strict=True)
        )
        for origin in ((i, j, k) for i in z for j in y for k in x):
            core = Box(Zyx(*origin), Zyx(*(o + CORE for o in origin)))
            read = core.grown(TRIMMED)
            start = Zyx(*(max(a, b) for a, b in zip(core.start, region.start, strict=True)))
            stop = Zyx(*(min(a, b) for a, b in zip(core.stop, region.stop, strict=True)))
            yield Context(read, Box(start, stop).relative_to(read.start))

    def borders(self, box: Box, region: Zyx) -> Borders:
        """Return where cores begin and end, in which what is averaged changes; see `Scheme`."""
        found = core_borders(self.shape, CORE, OVERLAP)
        lengths = zip(found, box.start, box.shape, strict=True)
        return Borders(*(p[(a < p) & (p < a + n)] - a for p, a, n in lengths))

    def halved(self, block: Context) -> list[Context]:
        """Refuse: the publication's blocks have one size."""
        raise HopelessError(
            f"a block of {block.read.shape.z} voxels, as in the publication, does not fit the "
            "memory; give fewer --workers, a device with more memory, or --scheme exact"
        )


def _cores(start: int, stop: int, length: int) -> range:
    """Return the origins along an axis of the cores that reach into a range of positions."""
    step = CORE - OVERLAP
    # The last core is the first that reaches the end of the axis.
    last = max(0, -(-(length - CORE) // step)) * step
    first = max(0, (start - CORE) // step + 1) * step
    return range(first, min(last, stop - 1) + 1, step)


def coverage(region: Box, shape: Zyx) -> NDArray[np.float32]:
    """Count the publication's cores that each voxel of a region lies in.

    Parameters
    ----------
    region : Box
    shape : Zyx
        Of the volume.

    Returns
    -------
    ndarray, (z, y, x) float32
    """
    counts = []
    for a, b, n in zip(region.start, region.stop, shape, strict=True):
        count = np.zeros(b - a, np.float32)
        for core in _cores(a, b, n):
            count[max(core - a, 0) : core + CORE - a] += 1
        counts.append(count)
    z, y, x = counts
    return z[:, None, None] * y[:, None] * x
