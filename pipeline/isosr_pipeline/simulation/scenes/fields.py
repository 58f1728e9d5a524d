"""The periodic field that objects are drawn in, and what several scenes draw with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Rng = np.random.Generator
Floats = NDArray[np.float64]
Field = NDArray[np.float32]
Shape = tuple[int, int, int]

MARGIN = 24
"""Voxels beyond the volume, that keep its opposite faces from continuing each other."""

_MIN_FIELD_UM = 24.0  # No object may meet its own periodic image.


def field_shape(shape: Sequence[int], voxel: float) -> Shape:
    """Return the shape in voxels of the field that a volume is cut from."""
    minimum = math.ceil(_MIN_FIELD_UM / voxel)
    z, y, x = (max(int(n) + MARGIN, minimum) for n in shape)
    return z, y, x


def blur(field: Field, sigma: float, axis: int) -> Field:
    """Blur a periodic field, (z, y, x), along an axis by a Gaussian of `sigma` voxels."""
    return np.asarray(ndimage.gaussian_filter1d(field, sigma, axis=axis, mode="wrap"), np.float32)


def smooth_noise(rng: Rng, shape: Shape, sigma: float) -> Field:
    """Draw periodic Gaussian noise of unit variance with correlation length `sigma`, (z, y, x)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis in range(3):
        noise = blur(noise, sigma, axis)
    noise /= noise.std()
    return noise


def in_unit_ball(rng: Rng, count: int) -> Floats:
    """Draw points uniform in the unit ball, (count, 3)."""
    points = rng.standard_normal((count, 3))
    points *= (np.cbrt(rng.random(count)) / np.linalg.norm(points, axis=1))[:, None]
    return points


def deposit(points: Floats, weights: Floats, shape: Shape) -> Field:
    """Bin fluorophores at `points`, (n, 3), into the periodic field, (z, y, x)."""
    z, y, x = (np.rint(points[:, a]).astype(np.int64) % shape[a] for a in range(3))
    flat = (z * shape[1] + y) * shape[2] + x
    return np.bincount(flat, weights, math.prod(shape)).reshape(shape).astype(np.float32)


def number(density_um: float, shape: Shape, voxel: float) -> int:
    """Return how many objects a field holds at a density per µm³, at least 1."""
    return max(1, round(density_um * math.prod(shape) * voxel**3))
