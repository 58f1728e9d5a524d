"""The job that judges one region of cells, and what is compared beforehand; they run on workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isosr_pipeline.engine.regions import RegionWriter
from isosr_pipeline.errors import HopelessError
from isosr_pipeline.geometry import Box, Region, Zyx, blocks
from isosr_pipeline.restoring.device import DoesNotFitError
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.evidence import CellSums, Judged, Terms, judge
from isosr_pipeline.trust.matching import Pairs
from isosr_pipeline.trust.reblurring import Compared, Reblurring

_INNER = 0.02
"""Share of light from beyond the volume up to which voxels are compared for the intensity fit."""


@dataclass(frozen=True)
class ComparePlace:
    """Takes voxels of a place, for the fit of intensities.

    Parameters
    ----------
    reblurring : Reblurring
    channel : int
        Of the restored volume.
    """

    reblurring: Reblurring
    channel: int

    def __call__(self, box: Box) -> Pairs:
        """Compare a box of the restored volume."""
        found = self.reblurring.compare(self.channel, box)
        inner = self.reblurring.beyond(found.positions, box) <= _INNER
        if not inner.any():
            return Pairs.of(found.measured, found.reblurred)
        return Pairs.of(found.measured[inner], found.reblurred[inner])


class Place(NamedTuple):
    """A cell that stands out among its neighbours.

    Parameters
    ----------
    score : float
    z, y, x : int
        Its number along each axis.
    """

    score: float
    z: int
    y: int
    x: int


@dataclass
class Counts:
    """How many cells of a region are what.

    Parameters
    ----------
    cells : int
        That are judged.
    signal : int
        Of these, that show more than background.
    invented, missing : int
        Flagged, with more or less light than was measured.
    flagged_signal : int
        Flagged ones that show more than background.
    """

    cells: int = 0
    signal: int = 0
    invented: int = 0
    missing: int = 0
    flagged_signal: int = 0

    def add(self, judged: Judged, threshold: float) -> None:
        """Count the cells of a block."""
        flagged = np.abs(judged.score) > threshold
        self.cells += int(judged.judged.sum())
        self.signal += int(judged.signal.sum())
        self.invented += int((judged.score > threshold).sum())
        self.missing += int((judged.score < -threshold).sum())
        self.flagged_signal += int((flagged & judged.signal).sum())


@dataclass
class TrustRegion:
    """Judges the cells of one region block by block and writes their scores.

    Parameters
    ----------
    reblurring : Reblurring
    out : Path
        The map to fill, whose voxels are cells.
    channels : list of int
        Those of the restored volume that the channels of the map are.
    terms : list of Terms
        Of each channel of the map.
    cell : Zyx
        In voxels of the restored volume.
    block : Zyx
        What is judged at once, in voxels; whole cells.
    threshold : float
    worst : int
        How many places are kept of a region.
    """

    reblurring: Reblurring
    out: Path
    channels: list[int]
    terms: list[Terms]
    cell: Zyx
    block: Zyx
    threshold: float
    worst: int
    _largest: float = field(default=float("inf"), init=False)

    def __call__(self, region: Region) -> dict[str, Any]:
        """Judge the region."""
        scores = np.zeros(region.box.shape, np.float32)
        counts = Counts()
        for box, judged in self._judged(region):
            cells = _cells(box, self.cell)
            scores[cells.relative_to(region.box.start).slices] = judged.score
            counts.add(judged, self.threshold)
        # What was read until now is of the volumes that are there now.
        self.reblurring.require_same()
        writer = RegionWriter(self._output, region, None)
        writer.add(region.box, scores)
        found = peaks(scores, self.threshold, self.worst, region.box.start)
        return {**writer.finish(), **vars(counts), "worst": found}

    @cached_property
    def _output(self) -> Volume:
        return Volume(self.out, writable=True)

    def _judged(self, region: Region) -> Iterator[tuple[Box, Judged]]:
        """Judge block by block; blocks that do not fit the device are halved."""
        start, stop = (
            Zyx(*(n * c for n, c in zip(edge, self.cell, strict=True)))
            for edge in (region.box.start, region.box.stop)
        )
        whole = Box(start, stop).clipped(self.reblurring.shape)
        waiting = deque(blocks(whole, self.block))
        while waiting:
            box = waiting.popleft()
            if box.voxels > self._largest:
                waiting.extendleft(reversed(self._halved(box)))
                continue
            try:
                yield box, self._judge(region.channel, box)
            except DoesNotFitError:
                self._largest = min(self._largest, box.voxels - 1)
                waiting.appendleft(box)

    def _judge(self, channel: int, box: Box) -> Judged:
        found = self.reblurring.compare(self.channels[channel], box)
        beyond = self.reblurring.beyond(found.positions, box)
        return judge_cells(found, beyond, self.terms[channel], box, self.cell)

    def _halved(self, box: Box) -> list[Box]:
        counts = _cells(box, self.cell).shape
        if max(counts) == 1:
            raise HopelessError(
                f"not even a cell of {self.cell} voxels with its halo of "
                f"{self.reblurring.block_halo[0]} fits the memory; give fewer --workers, a smaller "
                "--cell, or a device with more memory"
            )
        axis = counts.index(max(counts))
        half = -(-counts[axis] // 2) * self.cell[axis]
        return list(blocks(box, box.shape._replace(**{Zyx._fields[axis]: half})))


def judge_cells(
    found: Compared, beyond: NDArray[np.float32], terms: Terms, box: Box, cell: Zyx
) -> Judged:
    """Judge the cells of a box of the restored volume.

    Parameters
    ----------
    found : Compared
        Of the box.
    beyond : ndarray, (planes, y, x) float32
        See `Reblurring.beyond`.
    terms : Terms
    box : Box
        Whole cells, in voxels.
    cell : Zyx
        In voxels.
    """
    cells = _cells(box, cell)
    rows = ((found.positions + 0.5) // cell.z).astype(np.intp) - cells.start.z
    # By rounding, a plane may lie at the last voxel, or just beyond.
    rows = rows.clip(0, cells.shape.z - 1)
    explained = np.float32(terms.gain) * found.reblurred + np.float32(terms.offset)
    return judge(found.measured, explained, beyond, terms, CellSums(rows, cells.shape.z, cell))


def _cells(box: Box, cell: Zyx) -> Box:
    start = (a // c for a, c in zip(box.start, cell, strict=True))
    stop = (-(-b // c) for b, c in zip(box.stop, cell, strict=True))
    return Box(Zyx(*start), Zyx(*stop))


def peaks(scores: NDArray[np.float32], threshold: float, count: int, origin: Zyx) -> list[Place]:
    """Return the cells that are flagged and stand out among their neighbours, the worst first.

    Parameters
    ----------
    scores : ndarray, (z, y, x) float32
    threshold : float
    count : int
        At most.
    origin : Zyx
        Number of the first cell along each axis.
    """
    strength = np.abs(scores)
    at = np.argwhere((strength > threshold) & (strength == ndimage.maximum_filter(strength, 3)))
    at = at[np.argsort(-strength[tuple(at.T)], kind="stable")][:count]
    return [
        Place(float(scores[z, y, x]), int(z) + origin.z, int(y) + origin.y, int(x) + origin.x)
        for z, y, x in at
    ]
