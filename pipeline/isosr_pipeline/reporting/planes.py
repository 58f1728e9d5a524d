"""Planes and projections of both volumes, read from a bounded number of voxels.

::

    projections   a level of at most 2²² voxels of each volume, as a whole
    slices        windows of at most 320 voxels at full resolution, where the input shows most
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.reporting.pair import Pair
from isosr_pipeline.store.volume import Volume

ACROSS = {"XY": 0, "XZ": 1, "YZ": 2}
"""The axis across each plane: 0, 1, 2 for z, y, x."""

MOST_VOXELS = 1 << 22
"""Voxels of a level that are projected at the most."""

WINDOW = 320
"""Voxels along each side of a slice, at the most."""

_WIDEST = 512
_PARTS = 8
_PERCENTILES = (0.1, 99.9)


class PlanePair(NamedTuple):
    """A plane before and after restoration.

    Parameters
    ----------
    name : str
        ``"XY"``, ``"XZ"`` or ``"YZ"``; z runs downwards in the latter two.
    before, after : ndarray, (rows, columns)
        Intensities; pixels of the two need not be of the same size.
    size_um : tuple of 2 floats
        Height and width.
    box : Box
        What the plane shows, in voxels of the restored volume.
    """

    name: str
    before: NDArray[Any]
    after: NDArray[Any]
    size_um: tuple[float, float]
    box: Box


class Coarse(NamedTuple):
    """The part of a volume that was restored, at a level that is small enough.

    Parameters
    ----------
    voxels : ndarray, (z, y, x)
    start : tuple of 3 ints
        Of the part, in voxels of the level.
    step : tuple of 3 floats
        Voxels of level 0 along each side of a voxel of the level.
    """

    voxels: NDArray[Any]
    start: tuple[int, int, int]
    step: tuple[float, float, float]


def coarse_levels(pair: Pair, most: int = MOST_VOXELS) -> tuple[Coarse, Coarse] | None:
    """Read levels of both volumes, of voxels that are about as large.

    Parameters
    ----------
    pair : Pair
    most : int
        Voxels of a level at the most.

    Returns
    -------
    tuple of 2 Coarse, or None
        Before and after; None where a volume has no level that is small enough.
    """
    fine = _small_levels(pair.made, most)
    others = _small_levels(pair.measured, most)
    if not fine or not others:
        return None
    lateral = _lateral(pair.made, fine[0])
    near = min(others, key=lambda n: abs(math.log(_lateral(pair.measured, n) / lateral)))
    before, channel = pair.before, pair.before.channels[pair.channel]
    box = before.view.measured(before.box).box
    return (
        _read(pair.measured, channel, near, box),
        _read(pair.made, pair.channel, fine[0], pair.after.box),
    )


def projections(pair: Pair, levels: tuple[Coarse, Coarse]) -> Iterator[PlanePair]:
    """Project both volumes along each axis: the highest intensity of each line."""
    before, after = (level.voxels for level in levels)
    for name, axis in ACROSS.items():
        yield PlanePair(
            name,
            _narrowed(before.max(axis=axis)),
            _narrowed(after.max(axis=axis)),
            _size(pair, pair.after.box, axis),
            pair.after.box,
        )


def brightest_place(pair: Pair, level: Coarse) -> Zyx:
    """Return the middle of the eighth of the input's lengths that is brightest.

    The outer eighth at each side is left out: what lies there is seen, and restored, in part only.

    Parameters
    ----------
    pair : Pair
    level : Coarse
        Of the measured volume.

    Returns
    -------
    Zyx
        In voxels of the restored volume.
    """
    voxels = level.voxels
    # What is brighter than nearly all else would draw the place to itself.
    values = np.clip(voxels, *limits_of(voxels)).astype(np.float32)
    margins = [n // _PARTS for n in values.shape]
    found = uniform_filter(values, [max(1, n) for n in margins], mode="nearest")
    inner = found[tuple(slice(m, n - m) for m, n in zip(margins, found.shape, strict=True))]
    place = np.unravel_index(int(inner.argmax()), inner.shape)
    z, y, x = (
        (a + m + int(p) + 0.5) * s - 0.5
        for a, m, p, s in zip(level.start, margins, place, level.step, strict=True)
    )
    grid = (z / pair.before.view.planes_per_voxel, y, x)
    own = (round(g) - a for g, a in zip(grid, pair.before.box.start, strict=True))
    return Zyx(*(min(max(p, 0), n - 1) for p, n in zip(own, pair.after.shape, strict=True)))


def middle(pair: Pair) -> Zyx:
    """Return the middle of the restored volume, in voxels."""
    return Zyx(*(n // 2 for n in pair.after.shape))


def slices(pair: Pair, centre: Zyx) -> Iterator[PlanePair]:
    """Read windows of three planes through a voxel of the restored volume, at full resolution."""
    for name, axis in ACROSS.items():
        spans = [_span(c, n) for c, n in zip(centre, pair.after.shape, strict=True)]
        spans[axis] = (centre[axis], centre[axis] + 1)
        box = Box(Zyx(*(a for a, _ in spans)), Zyx(*(b for _, b in spans)))
        before, after = (
            part.read(pair.channel, box).squeeze(axis) for part in (pair.before, pair.after)
        )
        yield PlanePair(name, before, after, _size(pair, box, axis), box)


def limits_of(plane: NDArray[Any]) -> tuple[float, float]:
    """Return intensities to show as black and white: nearly the darkest and the brightest."""
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, _PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def common_limits(plane: PlanePair) -> tuple[float, float]:
    """Return intensities to show as black and white in both volumes, so that neither is cut off."""
    lows, highs = zip(*map(limits_of, (plane.before, plane.after)), strict=True)
    return min(lows), max(highs)


def _small_levels(volume: Volume, most: int) -> list[int]:
    sizes = [math.prod(array.shape[1:]) for array in volume.arrays]
    return [level for level, size in enumerate(sizes) if size <= most]


def _lateral(volume: Volume, level: int) -> float:
    return volume.step(level)[2] * volume.voxel_size[2]


def _read(volume: Volume, channel: int, level: int, box: Box) -> Coarse:
    step = volume.step(level)
    start = Zyx(*(math.floor(a / s) for a, s in zip(box.start, step, strict=True)))
    lengths = volume.arrays[level].shape[1:]
    stops = zip(box.stop, step, lengths, strict=True)
    stop = Zyx(*(min(math.ceil(b / s), n) for b, s, n in stops))
    # Levels that are rounded down may end before the part begins.
    start = Zyx(*(min(a, b - 1) for a, b in zip(start, stop, strict=True)))
    return Coarse(volume.read(channel, Box(start, stop), level), start, step)


def _narrowed(plane: NDArray[Any]) -> NDArray[Any]:
    """Project groups of pixels, so that no side is longer than a screen shows."""
    for axis in (0, 1):
        step = -(-plane.shape[axis] // _WIDEST)
        plane = np.maximum.reduceat(plane, np.arange(0, plane.shape[axis], step), axis=axis)
    return plane


def _span(centre: int, length: int) -> tuple[int, int]:
    width = min(WINDOW, length)
    start = min(max(centre - width // 2, 0), length - width)
    return start, start + width


def _size(pair: Pair, box: Box, across: int) -> tuple[float, float]:
    height, width = (n for axis, n in enumerate(box.shape) if axis != across)
    return height * pair.voxel_um, width * pair.voxel_um
