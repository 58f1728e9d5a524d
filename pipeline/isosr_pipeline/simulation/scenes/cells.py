"""Tissue of packed cells: membranes, and nuclei with textured chromatin."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from isosr_pipeline.simulation.scenes.fields import Field, Floats, Rng, Shape, smooth_noise


def _spaced_points(rng: Rng, shape: Shape, spacing: float) -> Floats:
    """Random points of the periodic field no nearer than `spacing` to each other, (n, 3)."""
    count = math.ceil(10 * math.prod(shape) / spacing**3)
    candidates = rng.random((count, 3)) * shape
    tree = cKDTree(candidates, boxsize=np.asarray(shape))
    free = np.ones(count, np.bool_)
    kept = []
    for index in range(count):
        if free[index]:
            kept.append(index)
            free[tree.query_ball_point(candidates[index], spacing)] = False
    return candidates[kept]


class _Cells(NamedTuple):
    """Packed cells; those near the border of the field are repeated beyond it."""

    seeds: Floats  # (cells, 3)
    to_nucleus: Floats  # (cells, 3, 3): maps the nucleus to the unit ball
    nucleus_radius: Floats  # (cells,): mean semi-axis
    brightness: Floats  # (cells, 2): of cytoplasm and nucleus


def _draw_cells(rng: Rng, shape: Shape, voxel: float) -> _Cells:
    spacing = 8.0 / voxel
    seeds = _spaced_points(rng, shape, spacing)
    count = len(seeds)
    axes = rng.uniform(2.5, 4.0, (count, 3)) / voxel
    turned = Rotation.random(count, rng=rng).as_matrix() / axes[:, :, None]
    brightness = rng.uniform((0.04, 0.25), (0.12, 0.6), (count, 2))
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) * shape
    every = (shifts[:, None, :] + seeds).reshape(-1, 3)
    near = np.all((every > -2 * spacing) & (every < np.add(shape, 2 * spacing)), axis=1)
    cell = np.flatnonzero(near) % count
    return _Cells(every[near], turned[cell], axes.mean(axis=1)[cell], brightness[cell])


def paint_cells(rng: Rng, shape: Shape, voxel: float) -> Field:
    """Draw packed cells in a field; see `isosr_pipeline.simulation.scenes.paint`."""
    cells = _draw_cells(rng, shape, voxel)
    tree = cKDTree(cells.seeds)
    warp = [smooth_noise(rng, shape, 2.5 / voxel) * (0.6 / voxel) for _ in range(3)]
    chromatin = np.exp(0.35 * smooth_noise(rng, shape, 0.5 / voxel))
    chromatin *= np.where(smooth_noise(rng, shape, 0.8 / voxel) > 1.6, 0.35, 1.0)
    signal = np.empty(shape, np.float32)
    # Plane by plane: the query for the nearest cells needs many times a volume's memory.
    y, x = np.indices(shape[1:])
    for z in range(shape[0]):
        points = np.stack([z + warp[0][z], y + warp[1][z], x + warp[2][z]], axis=-1)
        plane = _cell_brightness(cells, tree, points.reshape(-1, 3), chromatin[z].ravel())
        signal[z] = plane.reshape(shape[1:])
    return signal


def _cell_brightness(cells: _Cells, tree: cKDTree, points: Floats, texture: Field) -> Floats:
    """Brightness of packed cells at `points`, (n, 3), as (n,)."""
    distance, label = map(np.asarray, tree.query(points, k=2))
    own, other = label[:, 0], label[:, 1]
    apart = np.linalg.norm(cells.seeds[own] - cells.seeds[other], axis=1)
    to_membrane = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2.0 * apart)
    # One voxel thick whatever its direction, so that no orientation of a membrane is brighter.
    membrane = np.maximum(1.0 - to_membrane, 0.0)
    inside = np.einsum("nij,nj->ni", cells.to_nucleus[own], points - cells.seeds[own])
    depth = (1.0 - np.linalg.norm(inside, axis=1)) * cells.nucleus_radius[own]
    cytoplasm, nucleus = cells.brightness[own].T
    nucleus = np.clip(depth + 0.5, 0.0, 1.0) * nucleus * texture
    membrane += np.maximum(nucleus, cytoplasm * np.sqrt(texture))
    return np.asarray(membrane, np.float64)
