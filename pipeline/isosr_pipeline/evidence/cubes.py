"""Sampled cubes: where they lie, and all that is told from one of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.extremes import ExtremeCounts
from isosr_pipeline.evidence.places import Places
from isosr_pipeline.evidence.sections import SectionSpectra
from isosr_pipeline.evidence.shells import ShellSums
from isosr_pipeline.evidence.slopes import SlopeSums
from isosr_pipeline.evidence.transforms import MIN_SUBVOLUME, Transform
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import Part

MOST_CUBES = 64
"""Cubes that are measured, at the most, however large the volume is."""

_CUBES_PER_AXIS = 4


@dataclass(frozen=True)
class Cubes:
    """Where cubes lie.

    Parameters
    ----------
    edge : int
        In voxels.
    starts : tuple of Zyx
        First voxels.
    how : {"all", "signal", "even"}
        They cover the volume; or are drawn where it shows something; or spread evenly, since it
        could not be told where that is.
    """

    edge: int
    starts: tuple[Zyx, ...]
    how: str

    @property
    def boxes(self) -> Iterator[Box]:
        """In voxels of the grid."""
        for start in self.starts:
            yield Box(Zyx(0, 0, 0), Zyx(self.edge, self.edge, self.edge)).shifted(start)


def choose_cubes(places: Places, longest: int, seed: int) -> Cubes | None:
    """Choose cubes: all of a small volume, else those where it shows something.

    Parameters
    ----------
    places : Places
        Of the volume before restoration.
    longest : int
        Edge of a cube in voxels; less, and even, where the volume is thinner.
    seed : int

    Returns
    -------
    Cubes or None
        None: the volume is thinner than 16 voxels.
    """
    edge = min(longest, *places.shape) // 2 * 2
    if edge < MIN_SUBVOLUME:
        return None
    counts = [-(-length // edge) for length in places.shape]
    if math.prod(counts) <= MOST_CUBES:
        return Cubes(edge, _evenly(places.shape, edge, counts), "all")
    drawn = places.draw(Zyx(edge, edge, edge), MOST_CUBES, seed, apart=True)
    if drawn is not None:
        return Cubes(edge, drawn, "signal")
    few = [min(_CUBES_PER_AXIS, count) for count in counts]
    return Cubes(edge, _evenly(places.shape, edge, few), "even")


def _evenly(shape: Zyx, edge: int, counts: list[int]) -> tuple[Zyx, ...]:
    lengths = zip(shape, counts, strict=True)
    starts = [np.linspace(0, n - edge, count).round().astype(int).tolist() for n, count in lengths]
    return tuple(Zyx(*start) for start in itertools.product(*starts))


@dataclass
class CubeSums:
    """All that is told from cubes, summed up.

    Attributes
    ----------
    ratio : SpectrumRatio
    sections : SectionSpectra
    shells : ShellSums
    slopes : SlopeSums
    extremes : ExtremeCounts
    """

    ratio: SpectrumRatio
    sections: SectionSpectra
    shells: ShellSums
    slopes: SlopeSums
    extremes: ExtremeCounts

    def __add__(self, other: CubeSums) -> CubeSums:
        """Add up the cubes of both."""
        return CubeSums(
            self.ratio + other.ratio,
            self.sections + other.sections,
            self.shells + other.shells,
            self.slopes + other.slopes,
            self.extremes + other.extremes,
        )


@dataclass(frozen=True)
class MeasureCube:
    """Reads a cube once, transforms it once, and takes all figures of it.

    Parameters
    ----------
    part : Part
        Picklable.
    channel : int
        Of the part.
    """

    part: Part
    channel: int

    def __call__(self, box: Box) -> CubeSums:
        """Measure a cube whose edge is even."""
        view = self.part.view
        found = view.measured(box.shifted(self.part.box.start))
        voxels = view.volume.read(self.part.channels[self.channel], found.box)
        transform = Transform(found.resampled(voxels))
        return CubeSums(
            ratio=SpectrumRatio.of(transform),
            sections=SectionSpectra.of(transform),
            shells=ShellSums.of(transform),
            slopes=SlopeSums.of(transform),
            # Of what was measured: between a saturated plane and another one none is saturated.
            extremes=ExtremeCounts.of(voxels),
        )
