"""What making a trust map takes: blocks, bytes and work, and how fast workers compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from isosr_cluster.asking import ask_all
from isosr_models.reblurring import Reblur
from isosr_models.restorers import LocalFunction
from isosr_pipeline.blur.noise import NoiseModel
from isosr_pipeline.geometry import Box, Context, Zyx, blocks, reflect
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.restoring.device import DeviceRestorer
from isosr_pipeline.restoring.redundancy import BlockGrid, Side, block_grid, whole_chunks
from isosr_pipeline.restoring.timing import SECONDS, fastest_of, measured_block, work_of
from isosr_pipeline.settings import Device
from isosr_pipeline.trust.blocks import PLACES, compared, place_edge
from isosr_pipeline.trust.blurs import Blur
from isosr_pipeline.trust.evidence import Terms
from isosr_pipeline.trust.outline import MapOutline
from isosr_pipeline.trust.planes import MARGIN, Planes, at_planes
from isosr_pipeline.trust.reblurring import Compared
from isosr_pipeline.trust.regions import judge_cells

_Spans = list[tuple[int, int]]

_ANY_TERMS = Terms(1.0, 0.0, NoiseModel(1.0, 1.0), 0.0, 1.0, 1e-3, 0.02)
"""How long judging takes does not depend on them."""


@dataclass(frozen=True)
class _Blocks:
    """How a region is cut, with what comparing looks at around each block."""

    block: Zyx
    halo: int
    stride: int

    def blocks(self, region: Box) -> Iterator[Context]:
        """Cut a region, in voxels, into blocks with their halo."""
        return (compared(box, self.halo, self.stride) for box in blocks(region, self.block))


@dataclass(frozen=True)
class MapWork:
    """The blocks of all regions of a trust map, for one channel.

    Parameters
    ----------
    outline : MapOutline
    reblur : Reblur
        On any device, to be asked for its properties.
    block : Zyx
        What is judged at once, in voxels of the restored volume.
    origin : Zyx
        Where the restored volume begins on the isotropic grid of the measured one, in voxels.
    """

    outline: MapOutline
    reblur: Reblur
    block: Zyx
    origin: Zyx

    @cached_property
    def grid(self) -> BlockGrid:
        """What is blurred; along z on the grid of the measured volume where that decides."""
        function, outline = self.reblur.function, self.outline
        start = Zyx(self.origin.z if self.reblur.coarse else 0, 0, 0)
        cut = _Blocks(self.block, function.halo, function.stride)
        return block_grid(cut, Box.whole(outline.shape).shifted(start), outline.region)

    @property
    def blurring(self) -> int:
        """Multiply-adds of the blur in all blocks."""
        return self.grid.work(self.reblur.function)

    @property
    def judged(self) -> int:
        """Voxels of measured planes that are compared."""
        planes = self.outline.planes.within(0, self.outline.shape.z)
        return len(planes) * self.outline.shape.y * self.outline.shape.x

    @property
    def first(self) -> tuple[int, int]:
        """Multiply-adds and voxels, at most, of the places that are compared before."""
        outline, function = self.outline, self.reblur.function
        edge = place_edge(outline.planes)
        place = Zyx(*(min(edge, n) for n in outline.shape))
        # Half a place or more lies between neighbours.
        rooms = zip(outline.shape, place, strict=True)
        count = min(PLACES, math.prod(2 * (n - own) // own + 1 for n, own in rooms))
        around = compared(Box.whole(place), function.halo, function.stride)
        voxels = math.ceil(place.z / outline.planes.step) * place.y * place.x
        return count * work_of(function, around), count * voxels

    def decoded(self, chunk: Zyx) -> int:
        """Return the voxels of the restored volume that are decoded, again for each block.

        Parameters
        ----------
        chunk : Zyx
            Of the restored volume, in voxels.
        """
        z, y, x = self.grid.sides
        depth, height, width = self.outline.shape
        spans = [
            self._between_planes(z) if self.reblur.coarse else _within(z, depth),
            _within(y, height),
            _within(x, width),
        ]
        return math.prod(map(whole_chunks, spans, chunk))

    def decoded_planes(self, chunk: Zyx) -> int:
        """Return the measured voxels that are decoded, again for each block.

        Parameters
        ----------
        chunk : Zyx
            Of the measured volume, in voxels.
        """
        kept = [[(s.start + s.first, s.start + s.end) for s in axis] for axis in self.grid.sides]
        shift = self.origin.z if self.reblur.coarse else 0
        planes = [
            self.outline.planes.within(a - shift + MARGIN, b - shift - MARGIN) for a, b in kept[0]
        ]
        spans = [
            [(found.start, found.stop) for found in planes if found],
            *(
                [(a + n, b + n) for a, b in kept[axis]]
                for axis, n in enumerate(self.origin)
                if axis
            ),
        ]
        return math.prod(map(whole_chunks, spans, chunk))

    def _between_planes(self, sides: Sequence[Side]) -> _Spans:
        """Return what is read along z where planes are seen at their distance, and between them."""
        planes = self.outline.planes
        length = int((planes.count - 1) * planes.step) + 1
        spans = []
        for first, stop in _within(sides, length):
            low, high = int(first / planes.step), math.ceil((stop - 1) / planes.step)
            ends = planes.positions([low, min(high, planes.count - 1)]).clip(0, planes.length - 1)
            spans.append((int(ends[0]), min(math.ceil(ends[1]), planes.length - 1) + 1))
        return spans


def _within(sides: Sequence[Side], length: int) -> _Spans:
    """Return what is read along an axis of a volume that is mirrored at its borders."""
    found = (reflect(side.start, side.stop, length) for side in sides)
    return [(int(places.min()), int(places.max()) + 1) for places in found]


class Rates(NamedTuple):
    """How fast a worker compares.

    Parameters
    ----------
    blurring : float
        Multiply-adds of the blur in a second.
    judging : float
        Voxels of measured planes in a second.
    """

    blurring: float
    judging: float

    def seconds(self, blurring: float, judged: float) -> float:
        """Return how long so many multiply-adds and voxels take."""
        return blurring / self.blurring + judged / self.judging


def measure_rates(
    client: Client, blur: Blur, device: Device, outline: MapOutline, block: Zyx
) -> Rates:
    """Measure how fast the workers of a cluster compare: the mean of all, at the same time.

    Parameters
    ----------
    client : distributed.Client
    blur : Blur
    device : {"auto", "cpu", "cuda"}
    outline : MapOutline
    block : Zyx
        What is judged at once, in voxels.
    """
    job = partial(_rates, blur, device, outline.planes.step, outline.cell, block)
    found = ask_all(client, job)
    blurring, judging = (sum(rates) / len(found) for rates in zip(*found, strict=True))
    return Rates(blurring, judging)


def _rates(blur: Blur, device: Device, step: float, cell: Zyx, block: Zyx) -> Rates:
    """Measure a block of random voxels; runs on a worker."""
    function = blur.load(device).function
    return Rates(_blurring(function, block), _judging(step, cell, block))


@dataclass(frozen=True)
class _RandomVolume:
    """Voxels in memory, which cost nothing to read."""

    voxels: NDArray[np.float32]
    path = Path("random voxels")
    voxel_size = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        z, y, x = self.voxels.shape
        return 1, z, y, x

    def read(self, _channel: int, box: Box) -> NDArray[np.float32]:
        """Read a box that lies in it."""
        return self.voxels[box.slices]


def _blurring(function: LocalFunction, block: Zyx) -> float:
    """Return how many multiply-adds of a blur a worker does in a second."""
    around = compared(Box.whole(block), function.halo, function.stride)
    small = measured_block(function, function.halo, around.keep.shape)
    seconds = _blurred(function, small)
    if seconds * work_of(function, around) / work_of(function, small) > SECONDS:
        return work_of(function, small) / seconds
    # Where it takes no longer, the block itself: it may not fit the caches as a small one does.
    return work_of(function, around) / _blurred(function, around)


def _blurred(function: LocalFunction, block: Context) -> float:
    """Return how many seconds blurring a block takes, with all but reading it."""
    shape = block.read.shape
    image = _RandomVolume(np.random.default_rng(0).random(shape, np.float32))
    restorer = DeviceRestorer(IsotropicView(image), image, function, [(0.0, 1.0)])
    inside = Context(Box.whole(shape), block.keep)
    is_gpu = function.device.type == "cuda"
    return fastest_of(lambda: restorer.restore(0, inside, []), is_gpu=is_gpu)


def _judging(step: float, cell: Zyx, block: Zyx) -> float:
    """Return how many voxels of planes are brought to their place and judged in a second."""
    box = Box.whole(block)
    planes = Planes(step, 0, block.z, math.ceil(block.z / step) + 1)
    positions = planes.positions(planes.within(0, block.z))
    rng = np.random.default_rng(0)
    blurred = rng.random((block.z + 2 * MARGIN, block.y, block.x), np.float32)
    measured = rng.random((len(positions), block.y, block.x), np.float32)
    sides = [np.zeros(n, np.float32) for n in measured.shape]

    def judge() -> None:
        beyond = sides[0][:, None, None] + sides[1][:, None] + sides[2]
        found = Compared(positions, measured, at_planes(blurred, positions, box))
        judge_cells(found, beyond, _ANY_TERMS, box, cell)

    return measured.size / fastest_of(judge)
