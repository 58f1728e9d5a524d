"""Bright isolated spots, as wide as the microscope blurs them: their widths before and after.

::

    cubes ── brightest of each ──▶ typical height and widths
    cubes ── local maxima ── isolated? a Gaussian? ──▶ widths as measured ─┐
                                     the same place, restored ──▶ widths ──┴─▶ pairs

Before restoration a spot is fitted in the planes that were measured, not in interpolated ones,
which would widen it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.beads import (
    FAINTEST,
    LEAST_EXPLAINED,
    Peak,
    alike_spots,
    brightest_spot,
    judged,
    peaks_in,
    reach_of,
    surroundings,
)
from isosr_pipeline.blur.spots import FITTED, Spot, fit_section, fit_spot
from isosr_pipeline.evidence.distribution import Distribution, Result
from isosr_pipeline.evidence.sections import PLANES
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import Grid, Part

MOST_SPOTS = 512
"""Spots that are kept, at the most."""

Um = tuple[float, float, float]
"""Lengths or positions in µm, order z, y, x."""


class SpotWidths(Result):
    """Full widths at half maximum of Gaussians fitted to a spot, in µm.

    Attributes
    ----------
    fwhm_um : tuple of 3 floats
        Of the one fitted in 3D, order z, y, x.
    section_fwhm_um : dict of str to tuple of 2 floats
        Of those fitted in 2D to sections through its centre: ``"xy"`` along y and x, ``"xz"`` along
        z and x, ``"yz"`` along z and y. Sections in which no Gaussian is found are left out.
    """

    fwhm_um: Um
    section_fwhm_um: dict[str, tuple[float, float]]


class SpotPair(Result):
    """A spot before and after restoration.

    Attributes
    ----------
    centre_um : tuple of 3 floats
        Before, from the restored volume's first voxel on.
    shift_um : tuple of 3 floats
        By how much the centre moved.
    height : float
        Before, above the background, in intensity units.
    before, after : SpotWidths
    """

    centre_um: Um
    shift_um: Um
    height: float
    before: SpotWidths
    after: SpotWidths


class Widths(Result):
    """Distribution of widths along an axis.

    Attributes
    ----------
    before_um, after_um : Distribution or None
        Of full widths at half maximum, in µm.
    """

    before_um: Distribution | None
    after_um: Distribution | None


class SpotComparison(Result):
    """Widths of spots before and after restoration.

    Attributes
    ----------
    count : int
        Spots that were fitted in both volumes.
    left_out : dict of str to int
        How many others were found, by the reason why they are not counted.
    fwhm : dict of str to Widths
        Of Gaussians fitted in 3D, along ``"z"``, ``"y"`` and ``"x"``.
    section_fwhm : dict of str to dict of str to Widths
        Of those fitted in 2D, for ``"xy"``, ``"xz"`` and ``"yz"`` along their axes.
    axial_lateral_before, axial_lateral_after : Distribution or None
        Width along z over the mean of those along y and x.
    lateral_mismatch_um : Distribution or None
        Mean width along y and x after restoration, less that before.
    lateral_shift_um : Distribution or None
        Distance in XY of the centres before and after.
    pairs : tuple of SpotPair
        At most 512.
    """

    count: int
    left_out: dict[str, int]
    fwhm: dict[str, Widths]
    section_fwhm: dict[str, dict[str, Widths]]
    axial_lateral_before: Distribution | None
    axial_lateral_after: Distribution | None
    lateral_mismatch_um: Distribution | None
    lateral_shift_um: Distribution | None
    pairs: tuple[SpotPair, ...]


@dataclass(frozen=True)
class MeasuredPlanes:
    """The measured volume behind a part, as beads are looked for in it.

    Parameters
    ----------
    part : Part
    channel : int
        Of the part.
    """

    part: Part
    channel: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return self.part.view.volume.shape

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box in measured voxels; the channel is that of the part, whatever is given."""
        return self.part.view.volume.read(self.part.channels[self.channel], box)

    def box(self, box: Box) -> Box:
        """Return the measured voxels of a box of the part."""
        return self.part.view.measured(box.shifted(self.part.box.start)).box

    def to_part(self, place: Sequence[float]) -> Um:
        """Return a position in measured voxels in voxels of the part."""
        z, y, x = self.part.box.start
        return place[0] / self.part.view.planes_per_voxel - z, place[1] - y, place[2] - x


@dataclass(frozen=True)
class FindBrightest:
    """Finds the brightest spot of a box.

    Parameters
    ----------
    planes : MeasuredPlanes
    name : str
        For messages.
    """

    planes: MeasuredPlanes
    name: str

    def __call__(self, box: Box) -> tuple[Peak, ...]:
        """Return none or one, in measured voxels; tuples add up to a list."""
        found = brightest_spot(self.planes, 0, self.planes.box(box), self.name)
        return () if found is None else (found,)


@dataclass
class FoundSpots:
    """Spots of boxes.

    Attributes
    ----------
    spots : list of (Spot, SpotPair)
        Each as it was fitted before restoration, in measured voxels.
    left_out : Counter
        How many others, by the reason.
    """

    spots: list[tuple[Spot, SpotPair]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: FoundSpots) -> FoundSpots:
        """Spots of the boxes of both."""
        return FoundSpots(self.spots + other.spots, self.left_out + other.left_out)


@dataclass(frozen=True)
class MeasureSpots:
    """Finds the isolated spots of a box, and fits each before and after restoration.

    Parameters
    ----------
    planes : MeasuredPlanes
        Before.
    after : Grid
        Restored, of the part's shape.
    voxel_um : float
        Edge of the isotropic voxels.
    height : float
        Of the typical spot, in the units of the volume.
    fwhm : tuple of 3 floats
        Of the typical spot, in measured voxels.
    most : int
        Spots of a box, the brightest.
    """

    planes: MeasuredPlanes
    after: Grid
    voxel_um: float
    height: float
    fwhm: Um
    most: int

    def __call__(self, box: Box) -> FoundSpots:
        """Measure the spots of a box."""
        fwhm = np.array(self.fwhm)
        reach = reach_of(fwhm)
        # What a Gaussian is fitted to; more would leave out most spots of a thin volume.
        room = Zyx(*(math.ceil(FITTED * width) for width in self.fwhm))
        tile = self.planes.box(box)
        # Neighbours beyond the box count, too.
        margin = zip(tile.start, tile.stop, reach, fwhm, strict=True)
        spans = [(a - r - math.ceil(w), b + r + math.ceil(w)) for a, b, r, w in margin]
        around = Box(Zyx(*(a for a, _ in spans)), Zyx(*(b for _, b in spans)))
        around = around.clipped(self.planes.shape[1:])
        peaks = list(peaks_in(self.planes, 0, around, self.height, fwhm))
        found = FoundSpots()
        for peak in sorted(peaks, reverse=True):
            inside = all(
                a <= p < b for a, p, b in zip(tile.start, peak.place, tile.stop, strict=True)
            )
            if not inside or peak.height < FAINTEST * self.height:
                continue
            if len(found.spots) == self.most:
                break
            reason, spot = judged(self.planes, 0, peak, peaks, fwhm, room)
            if spot is not None:
                reason, pair = self._paired(spot, peak.place, room)
                if pair is not None:
                    found.spots.append((spot, pair))
                    continue
            found.left_out[reason] += 1
        return found

    def _paired(self, spot: Spot, place: Zyx, room: Zyx) -> tuple[str, SpotPair | None]:
        """Fit a spot in the restored volume; return why that can't be done, or both."""
        step = 1 / self.planes.part.view.planes_per_voxel
        around = surroundings(place, room)
        before = self.planes.read(0, around)
        centre = self.planes.to_part(spot.centre)
        middle = Zyx(*(round(c) for c in centre))
        wide = Zyx(math.ceil(room.z * step), room.y, room.x)
        box = surroundings(middle, wide)
        if box.clipped(self.after.shape) != box:
            return "at the border", None
        values = self.after.read(self.planes.channel, box)
        restored = fit_spot(values)
        if restored is None or restored.explained < LEAST_EXPLAINED:
            return "shape after restoration", None
        moved = [c + a - b for c, a, b in zip(restored.centre, box.start, centre, strict=True)]
        widths = [w * s for w, s in zip(spot.fwhm, (step, 1, 1), strict=True)]
        if any(abs(m) > max(w, 1.0) for m, w in zip(moved, widths, strict=True)):
            return "elsewhere after restoration", None
        at = [c - a for c, a in zip(spot.centre, around.start, strict=True)]
        um = self.voxel_um
        return "", SpotPair(
            centre_um=(centre[0] * um, centre[1] * um, centre[2] * um),
            shift_um=(moved[0] * um, moved[1] * um, moved[2] * um),
            height=spot.amplitude,
            before=_widths(spot.fwhm, before, at, (step * um, um, um)),
            after=_widths(restored.fwhm, values, restored.centre, (um, um, um)),
        )


def _widths(fwhm: Um, values: NDArray[Any], centre: Sequence[float], size: Um) -> SpotWidths:
    """Fit sections through the centre of a spot, and bring all widths to µm."""
    sections = {}
    for plane, axes in PLANES.items():
        (across,) = set(range(3)) - set(axes)
        found = fit_section(np.take(values, round(centre[across]), axis=across))
        if found is not None:
            sections[plane] = (found[0] * size[axes[0]], found[1] * size[axes[1]])
    z, y, x = (w * s for w, s in zip(fwhm, size, strict=True))
    return SpotWidths(fwhm_um=(z, y, x), section_fwhm_um=sections)


def compare_spots(found: FoundSpots, seed: int) -> SpotComparison:
    """Sum up spots.

    Parameters
    ----------
    found : FoundSpots
        Those that overlapping boxes both hold are counted once.
    seed : int
        Of those that are kept, where there are more than 512.
    """
    places = {tuple(round(c) for c in one[0].centre): one for one in found.spots}
    single = list(places.values())
    alike = [single[index][1] for index in alike_spots([spot for spot, _pair in single])]
    left_out = found.left_out + Counter({"shape": len(single) - len(alike)})
    if len(alike) > MOST_SPOTS:
        kept = np.random.default_rng(seed).choice(len(alike), MOST_SPOTS, replace=False)
        left_out[f"beyond {MOST_SPOTS}"] = len(alike) - MOST_SPOTS
        alike = [alike[index] for index in sorted(kept.tolist())]
    lateral = [(_lateral(pair.before), _lateral(pair.after)) for pair in alike]
    return SpotComparison(
        count=len(alike),
        left_out=dict(+left_out),
        fwhm={
            axis: _distributed([(p.before.fwhm_um[index], p.after.fwhm_um[index]) for p in alike])
            for index, axis in enumerate(AXES)
        },
        section_fwhm={
            plane: {AXES[axis]: _of_section(alike, plane, side) for side, axis in enumerate(axes)}
            for plane, axes in PLANES.items()
        },
        axial_lateral_before=Distribution.of(
            p.before.fwhm_um[0] / _lateral(p.before) for p in alike
        ),
        axial_lateral_after=Distribution.of(p.after.fwhm_um[0] / _lateral(p.after) for p in alike),
        lateral_mismatch_um=Distribution.of(after - before for before, after in lateral),
        lateral_shift_um=Distribution.of(math.hypot(*p.shift_um[1:]) for p in alike),
        pairs=tuple(alike),
    )


def _lateral(widths: SpotWidths) -> float:
    return (widths.fwhm_um[1] + widths.fwhm_um[2]) / 2


def _of_section(pairs: Sequence[SpotPair], plane: str, side: int) -> Widths:
    """Widths in a section, of the spots that have one in it before and after."""
    both = [
        (p.before.section_fwhm_um.get(plane), p.after.section_fwhm_um.get(plane)) for p in pairs
    ]
    return _distributed([(a[side], b[side]) for a, b in both if a is not None and b is not None])


def _distributed(widths: Sequence[tuple[float, float]]) -> Widths:
    return Widths(
        before_um=Distribution.of(before for before, _ in widths),
        after_um=Distribution.of(after for _, after in widths),
    )
