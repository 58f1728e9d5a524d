"""The levels of a volume: which there are, and how one is made from the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx

COARSEST = 128
"""No further level is made once no axis is longer than this, in voxels."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid.

    Parameters
    ----------
    shape : Zyx
        In voxels.
    step : Zyx
        Voxels of level 0 along each side of a voxel of this level.
    factors : Zyx
        Voxels of the level before along each side of a voxel of this level: 1 or 2.
    """

    shape: Zyx
    step: Zyx
    factors: Zyx

    def scale(self, voxel_size: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return this level's voxel size in µm, given that of level 0."""
        z, y, x = (size * step for size, step in zip(voxel_size, self.step, strict=True))
        return z, y, x

    def translation(
        self,
        voxel_size: tuple[float, float, float],
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> tuple[float, float, float]:
        """Return the centre of this level's first voxel in µm; that of level 0 is `origin`."""
        z, y, x = (
            first + size * (step - 1) / 2
            for first, size, step in zip(origin, voxel_size, self.step, strict=True)
        )
        return z, y, x


def plan_levels(shape: Zyx, voxel_size: tuple[float, float, float]) -> list[Level]:
    """Plan a pyramid that becomes isotropic before it shrinks along z.

    Parameters
    ----------
    shape : Zyx
        Of level 0, in voxels.
    voxel_size : tuple of 3 floats
        Of level 0, in µm, order z, y, x.

    Returns
    -------
    list of Level
        Level 0 first. z is halved only where it is as fine as y and x; an axis of one voxel never.
    """
    levels = [Level(shape, Zyx(1, 1, 1), Zyx(1, 1, 1))]
    while max(levels[-1].shape) > COARSEST:
        last = levels[-1]
        z, y, x = last.scale(voxel_size)
        halve = (z <= min(y, x) * (1 + 1e-6), True, True)
        factors = Zyx(*(2 if h and n > 1 else 1 for h, n in zip(halve, last.shape, strict=True)))
        if factors == (1, 1, 1):
            factors = Zyx(2, 1, 1)
        levels.append(
            Level(
                Zyx(*(math.ceil(n / f) for n, f in zip(last.shape, factors, strict=True))),
                Zyx(*(s * f for s, f in zip(last.step, factors, strict=True))),
                factors,
            )
        )
    return levels


def parent_box(box: Box, level: Level, parent_shape: Zyx) -> Box:
    """Return the voxels of the level before that a box of `level` is made from."""
    start = Zyx(*(a * f for a, f in zip(box.start, level.factors, strict=True)))
    stop = Zyx(*(b * f for b, f in zip(box.stop, level.factors, strict=True)))
    return Box(start, stop).clipped(parent_shape)


def downsample(volume: NDArray[np.generic], factors: Zyx) -> NDArray[np.generic]:
    """Average voxels by 1 or 2 along each axis.

    Parameters
    ----------
    volume : ndarray, (z, y, x)
        An odd length ends in a voxel that is averaged over fewer.
    factors : Zyx

    Returns
    -------
    ndarray, (ceil(z / fz), ceil(y / fy), ceil(x / fx)), same dtype
        Integers are rounded to the nearest.
    """
    means = volume.astype(np.float32)
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        if means.shape[axis] % 2:
            last = np.take(means, [-1], axis=axis)
            means = np.concatenate((means, last), axis=axis)
        even = means[(slice(None),) * axis + (slice(0, None, 2),)]
        odd = means[(slice(None),) * axis + (slice(1, None, 2),)]
        means = (even + odd) * np.float32(0.5)
    if volume.dtype.kind in "ui":
        means = np.rint(means)
    return means.astype(volume.dtype)
