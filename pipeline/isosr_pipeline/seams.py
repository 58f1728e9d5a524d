"""The seam score: the step across the borders of blocks against the step elsewhere.

::

        │ border            step i: sum over the plane of |v[i] - v[i-1]|
    ┌───┼───┐
    │   │   │ 64            score = step at the border / mean step elsewhere in the cube,
    └───┼───┘                       each summed over the cubes of an axis
      12 12

1 is no seam. A sharp edge of the specimen may lie on a border, and interpolated planes have steps
of their own, so the same cubes are measured before restoration: the difference is what counts.
Only a sample is read, whose size does not grow with the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import Grid

CUBES = 64
"""Cubes an axis, at most; that many and no more are measured in either volume."""

REACH = 12
"""Voxels of a cube on either side of its border."""

WIDTH = 64
"""Voxels of a cube along the other two axes."""

DRAWS = 4
"""Places that are looked at before restoration for each one that is kept."""

_ERRORS = 3.0
"""Standard errors beyond which an excess is no chance."""

_VISIBLE = 0.02

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class Borders(NamedTuple):
    """Where blocks meet; each border is a plane through the whole volume.

    Attributes
    ----------
    z, y, x : ndarray, (n,) int64
        Ascending positions p in voxels: the border lies between the voxels p - 1 and p.
    """

    z: _Ints
    y: _Ints
    x: _Ints

    def joined(self, other: Borders) -> Borders:
        """Return the borders of both."""
        return Borders(*(np.union1d(a, b) for a, b in zip(self, other, strict=True)))


def block_borders(shape: Zyx, region: Zyx, block: Zyx) -> Borders:
    """Return the borders of regions, and of the blocks that each of them is cut into anew.

    Parameters
    ----------
    shape : Zyx
        Of the volume, in voxels; regions are laid from its first voxel.
    region, block : Zyx
        In voxels; what the far side of the volume, or of a region, leaves of one may be smaller.
    """
    return Borders(
        *(
            _inside((a for first in range(0, n, r) for a in range(first, min(first + r, n), b)), n)
            for n, r, b in zip(shape, region, block, strict=True)
        )
    )


def core_borders(shape: Zyx, core: int = 120, overlap: int = 30) -> Borders:
    """Return the borders of overlapping cores, as the publication lays them.

    Parameters
    ----------
    shape : Zyx
        Of the volume, in voxels.
    core : int
        Length of a core, in voxels. The first that reaches the far side is the last, and is cut
        off there.
    overlap : int
        Of two neighbours, in voxels: below `core`. Both the start and the stop of a core are
        borders, since what is averaged changes there.
    """
    return Borders(
        *(
            _inside(
                (
                    p
                    for first in range(0, max(n - overlap, 1), core - overlap)
                    for p in (first, first + core)
                ),
                n,
            )
            for n in shape
        )
    )


def _inside(positions: Iterable[int], length: int) -> _Ints:
    return np.array(sorted({p for p in positions if 0 < p < length}), np.int64)


class Figure(BaseModel):
    """A figure and its sampling error.

    Attributes
    ----------
    value : float
    error : float or None
        Standard error, from the scatter of cubes; None for a single cube.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    error: float | None

    def __str__(self) -> str:
        return f"{self.value:.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")


class AxisSeam(BaseModel):
    """Seams across one axis.

    Attributes
    ----------
    before, after : Figure
        Scores of the measured volume and of the restored one: 1 is no seam.
    excess : Figure
        ``after - before``; both see the same cubes, so its error is smaller than theirs.
    cubes : int
        How many were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: Figure
    after: Figure
    excess: Figure
    cubes: int

    @property
    def is_seam(self) -> bool:
        """Whether the excess is more than the sampling explains, and than an eye would see."""
        error = self.excess.error
        return error is not None and abs(self.excess.value) > max(_ERRORS * error, _VISIBLE)


class SeamScore(BaseModel):
    """Seams of a restored volume.

    Attributes
    ----------
    z, y, x : AxisSeam or None
        Across borders of that axis. None where there is no border, or no signal around any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    z: AxisSeam | None
    y: AxisSeam | None
    x: AxisSeam | None

    @property
    def worst(self) -> tuple[str, AxisSeam] | None:
        """The axis whose excess is farthest from 0, by name: an average would hide it."""
        found = [(axis, seam) for axis in AXES if (seam := getattr(self, axis)) is not None]
        return max(found, key=lambda item: abs(item[1].excess.value), default=None)

    def __str__(self) -> str:
        if self.worst is None:
            return "no borders with signal around them"
        axis, seam = self.worst
        if seam.excess.error is None:
            return "too few places with signal to tell"
        verdict = "there are some" if seam.is_seam else "none to be seen"
        return (
            f"{verdict}; along {axis}, where they differ most, steps across borders are "
            f"{seam.after} of those elsewhere, and {seam.before} in the input"
        )


def seam_score(
    before: Grid,
    after: Grid,
    channel: int,
    borders: Borders,
    *,
    stride: int = 1,
    seed: int = 0,
) -> SeamScore:
    """Measure the steps across borders, before and after restoration, on a sample of cubes.

    Places are drawn at random, and those with the most structure before restoration are kept: what
    the restored volume looks like has no say in it.

    Parameters
    ----------
    before, after : Grid
        What was measured and what was made of it, of one shape.
    channel : int
    borders : Borders
        In voxels of `after`.
    stride : int
        Of the restorer: only steps that lie a multiple of it away from the border are compared with
        it, in voxels. Upsampling in a network may leave a pattern of that period, which is no seam.
    seed : int
        Of the places.

    Returns
    -------
    SeamScore
        The same for the same volumes and seed.

    Raises
    ------
    InputError
        When they are of different shapes, or a border does not lie in them.
    """
    _check(before, after, borders)
    found = []
    for axis in range(3):
        probe = _Probe(axis, borders[axis], stride)
        rng = np.random.default_rng((seed, axis))
        found.append(_summarise(_sample(probe, before, after, channel, rng)))
    z, y, x = found
    return SeamScore(z=z, y=y, x=x)


def _check(before: Grid, after: Grid, borders: Borders) -> None:
    lengths = zip(AXES, before.shape, after.shape, borders, strict=True)
    for axis, measured, length, positions in lengths:
        if measured != length:
            raise InputError(
                f"axis {axis}: the restored volume has {length} voxels, and what it is compared "
                f"with {measured} on the isotropic grid; give the volume that restore made of it"
            )
        if len(positions) and not 0 < positions.min() <= positions.max() < length:
            raise InputError(
                f"axis {axis}: borders from {positions.min()} to {positions.max()} do not lie "
                f"between voxels of a volume of {length}; give those of this volume"
            )


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps in a cube: at its border, and the mean and number of those elsewhere."""

    border: float
    elsewhere: float
    count: int

    @property
    def structure(self) -> float:
        """Mean of all; every plane counts alike, so that to choose by it favours no score."""
        mean = (self.border + self.count * self.elsewhere) / (1 + self.count)
        return mean if math.isfinite(mean) else 0.0


@dataclass(frozen=True, slots=True)
class _Probe:
    """Looks across the borders of one axis."""

    axis: int
    borders: _Ints
    stride: int

    def elsewhere(self, border: int, length: int) -> _Ints:
        """Return positions of the steps to compare with: of the cube, and of no border."""
        low, high = max(border - REACH, 0), min(border + REACH, length)
        steps = np.arange(low + 1, high, dtype=np.int64)
        steps = steps[(steps - border) % self.stride == 0]
        return np.setdiff1d(steps, self.borders, assume_unique=True)

    def cube(self, border: int, lateral: Sequence[tuple[int, int]], length: int) -> Box:
        """Return the cube around a border at a lateral place, cut off by the volume."""
        spans = list(lateral)
        spans.insert(self.axis, (max(border - REACH, 0), min(border + REACH, length)))
        starts, stops = zip(*spans, strict=True)
        return Box(Zyx(*starts), Zyx(*stops))

    def measure(self, values: NDArray[Any], box: Box, border: int, elsewhere: _Ints) -> _Steps:
        # In the type of the volume, a step down of an unsigned integer would be a huge one up.
        with np.errstate(invalid="ignore"):
            steps = np.abs(np.diff(values.astype(np.float64), axis=self.axis))
        profile = steps.sum(axis=tuple(a for a in range(3) if a != self.axis))
        first = box.start[self.axis] + 1
        return _Steps(
            float(profile[border - first]),
            float(profile[elsewhere - first].mean()),
            len(elsewhere),
        )


def _sample(
    probe: _Probe, before: Grid, after: Grid, channel: int, rng: np.random.Generator
) -> _Floats:
    """Measure cubes of one axis.

    Returns
    -------
    ndarray, (cubes, 4) float64
        Step at the border and mean step elsewhere, before restoration and after.
    """
    length = after.shape[probe.axis]
    places = _Places([n for a, n in enumerate(after.shape) if a != probe.axis])
    each = max(1, CUBES // max(1, len(probe.borders)))
    rows = []
    for border in _drawn(probe.borders, rng):
        elsewhere = probe.elsewhere(border, length)
        if not len(elsewhere):
            continue
        looked_at = []
        for place in rng.choice(len(places), min(len(places), DRAWS * each), replace=False):
            box = probe.cube(border, places[place], length)
            values = before.read(channel, box)
            looked_at.append((probe.measure(values, box, border, elsewhere), box))
        looked_at.sort(key=lambda item: item[0].structure, reverse=True)
        for was, box in looked_at[:each]:
            now = probe.measure(after.read(channel, box), box, border, elsewhere)
            rows.append((was.border, was.elsewhere, now.border, now.elsewhere))
    return np.array(rows, np.float64).reshape(-1, 4)


def _drawn(borders: _Ints, rng: np.random.Generator) -> list[int]:
    """Draw one border of each of `CUBES` equal parts: every n-th might miss those of regions."""
    if len(borders) <= CUBES:
        return [int(p) for p in borders]
    drawn = (np.arange(CUBES) + rng.random(CUBES)) * len(borders) / CUBES
    return [int(p) for p in borders[drawn.astype(np.intp)]]


class _Places:
    """Lateral places that do not overlap, numbered; made on demand."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths
        self._counts = [max(1, n // WIDTH) for n in lengths]

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __getitem__(self, index: int) -> list[tuple[int, int]]:
        cells = np.unravel_index(index, self._counts)
        spans = []
        for n, count, cell in zip(self._lengths, self._counts, cells, strict=True):
            start = int(cell) * (n - WIDTH) // (count - 1) if count > 1 else max(0, n - WIDTH) // 2
            spans.append((start, min(start + WIDTH, n)))
        return spans


def _summarise(rows: _Floats) -> AxisSeam | None:
    """Make scores of what `_sample` returns."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows) or not rows[:, 1].sum() or not rows[:, 3].sum():
        return None
    was, was_off = _ratio(rows[:, 0], rows[:, 1])
    now, now_off = _ratio(rows[:, 2], rows[:, 3])
    return AxisSeam(
        before=_figure(was, was_off),
        after=_figure(now, now_off),
        excess=_figure(now - was, now_off - was_off),
        cubes=len(rows),
    )


def _ratio(border: _Floats, elsewhere: _Floats) -> tuple[float, _Floats]:
    """Return the ratio of the sums, and by how much each cube moves it.

    The variance of a ratio estimator by linearisation: Cochran, Sampling Techniques, section 6.
    """
    value = float(border.sum() / elsewhere.sum())
    return value, (border - value * elsewhere) / elsewhere.sum()


def _figure(value: float, off: _Floats) -> Figure:
    n = len(off)
    error = math.sqrt(n / (n - 1) * float((off**2).sum())) if n > 1 else None
    return Figure(value=value, error=error)
