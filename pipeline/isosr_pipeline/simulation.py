"""Fluorescence volumes with a known truth: one object, imaged with and without axial blur.

An object is drawn in a periodic field somewhat larger than the volume and the volume is cut out of
it, so that objects cross the borders and nothing is special there. Objects have no preferred
direction. The PSF is a Gaussian, and one count is one photon. All coordinates are (z, y, x), in
voxels of the isotropic object grid unless a name ends in ``_um``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from isosr_pipeline.errors import InputError

SCENES = ("neurites", "beads", "cells")
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
BEAD_DIAMETER_UM = 0.5

_Rng = np.random.Generator
_Floats = NDArray[np.float64]
_Volume = NDArray[np.float32]
_Shape = tuple[int, int, int]

# Room above the brightest expected count for Poisson noise, so that uint16 never overflows.
_MAX_COUNTS = 60000
# Voxels beyond the volume, that keep its opposite faces from continuing each other.
_MARGIN = 24
_MIN_FIELD_UM = 24.0  # No object may meet its own periodic image.
_FLUOROPHORES_PER_VOXEL = 48.0
_FLUOROPHORES_PER_BEAD = 500


@dataclass(frozen=True)
class Acquisition:
    """How a simulated object is imaged.

    Parameters
    ----------
    voxel_size_um : float
        Edge of the isotropic voxels of the object and of the truth, µm, 0.2 to 2.
    lateral_fwhm_um : float
        Full width at half maximum of the Gaussian PSF along y and x, µm; at least one voxel.
    axial_fwhm_um : float
        Full width at half maximum of the PSF along z, µm; at least the lateral one.
    z_step : int
        Every ``z_step``-th plane is imaged; 1 images all of them.
    photons : float
        Photons, above the background, expected at the brightest voxel of the truth's field.
    background : float
        Photons expected everywhere, in image and truth.

    Raises
    ------
    InputError
        If a value is outside the range given above.
    """

    voxel_size_um: float = 0.5
    lateral_fwhm_um: float = 1.2
    axial_fwhm_um: float = 3.6
    z_step: int = 1
    photons: float = 200.0
    background: float = 10.0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("voxel_size_um", "lateral_fwhm_um", "axial_fwhm_um", "photons", "background"):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            _require(number and math.isfinite(value), f"{name}: {value!r} is not a finite number")
        voxel, lateral, axial = self.voxel_size_um, self.lateral_fwhm_um, self.axial_fwhm_um
        _require(
            0.2 <= voxel <= 2.0,
            f"voxel_size_um: {voxel} µm is outside 0.2 to 2 µm, where objects can be drawn",
        )
        _require(
            lateral >= voxel,
            f"lateral_fwhm_um: {lateral} µm is less than one voxel ({voxel} µm), which cannot "
            "sample the PSF; raise it or lower voxel_size_um",
        )
        _require(
            axial >= lateral,
            f"axial_fwhm_um: {axial} µm is less than lateral_fwhm_um ({lateral} µm), and the PSF "
            "is longest along z; raise axial_fwhm_um",
        )
        step = self.z_step
        _require(_is_whole(step) and step >= 1, f"z_step: {step!r} is not a whole number above 0")
        self._check_counts()

    def _check_counts(self) -> None:
        _require(self.photons > 0, f"photons: {self.photons} is not positive; give e.g. 200")
        _require(self.background >= 0, f"background: {self.background} is negative; give e.g. 10")
        _require(
            self.photons + self.background <= _MAX_COUNTS,
            f"photons: {self.photons} and background {self.background} exceed {_MAX_COUNTS} "
            "counts together, what uint16 holds with the noise; lower either",
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated acquisition and its truth.

    Attributes
    ----------
    image : (z', y, x) uint16
        Photon counts under the anisotropic PSF, with Poisson noise. Plane ``k`` lies at plane
        ``k * z_step`` of the truth.
    truth : (z, y, x) uint16
        Expected counts of the same object under the lateral PSF along all three axes, free of
        noise: the best that a method without a reference can aim at.
    image_voxel_size, truth_voxel_size : (z, y, x) float
        Voxel sizes, µm.
    """

    image: NDArray[np.uint16]
    truth: NDArray[np.uint16]
    image_voxel_size: tuple[float, float, float]
    truth_voxel_size: tuple[float, float, float]


def simulate(scene: str, shape: Sequence[int], acquisition: Acquisition, seed: int) -> Simulated:
    """Draw a scene and image it.

    The object depends on scene, shape, voxel size and seed alone, not on PSF or photons.

    Parameters
    ----------
    scene : {"neurites", "beads", "cells"}
        Somata with dendrites and varicose axons; spheres of 0.5 µm; or packed cells.
    shape : (z, y, x) int
        Voxels of the truth; at least 1 along each axis.
    acquisition : Acquisition
        Voxel size, PSF, axial sampling, photons.
    seed : int
        Seed of the object and the noise, 0 or more.

    Returns
    -------
    Simulated
        Image and truth, aligned and in the same intensity units (photon counts).

    Raises
    ------
    InputError
        If the scene is unknown, or the shape or the seed is malformed.
    """
    _require(scene in SCENES, f"scene: {scene!r} is unknown; choose one of {', '.join(SCENES)}")
    _require(
        len(shape) == 3 and all(_is_whole(n) and n >= 1 for n in shape),
        f"shape: {tuple(shape)} is not three whole numbers above 0; give e.g. (128, 128, 128)",
    )
    _require(_is_whole(seed) and seed >= 0, f"seed: {seed!r} is not a whole number of 0 or more")
    object_rng, noise_rng = np.random.default_rng(int(seed)).spawn(2)

    voxel = acquisition.voxel_size_um
    field = field_shape(shape, voxel)
    sharp, blurred = _under_psf(_PAINTERS[scene](object_rng, field, voxel), acquisition)
    counts = acquisition.photons / float(sharp.max())
    volume = tuple(map(slice, shape))
    truth = sharp[volume] * counts + acquisition.background
    expected = blurred[volume][:: acquisition.z_step] * counts + acquisition.background
    return Simulated(
        image=noise_rng.poisson(expected).astype(np.uint16),
        truth=np.rint(truth).astype(np.uint16),
        image_voxel_size=(voxel * acquisition.z_step, voxel, voxel),
        truth_voxel_size=(voxel, voxel, voxel),
    )


def field_shape(shape: Sequence[int], voxel: float) -> _Shape:
    """Return the shape in voxels of the field that a volume is cut from."""
    minimum = math.ceil(_MIN_FIELD_UM / voxel)
    z, y, x = (max(int(n) + _MARGIN, minimum) for n in shape)
    return z, y, x


def _under_psf(signal: _Volume, acquisition: Acquisition) -> tuple[_Volume, _Volume]:
    """Object under the lateral PSF on all axes, and under the anisotropic PSF."""
    per_voxel = 1.0 / (FWHM_PER_SIGMA * acquisition.voxel_size_um)
    lateral, axial = acquisition.lateral_fwhm_um, acquisition.axial_fwhm_um
    planes = _blur(_blur(signal, lateral * per_voxel, 2), lateral * per_voxel, 1)
    # Rounding of the filter must not leave negative Poisson rates.
    sharp, blurred = (np.maximum(_blur(planes, f * per_voxel, 0), 0) for f in (lateral, axial))
    return sharp, blurred


def _blur(volume: _Volume, sigma: float, axis: int) -> _Volume:
    return np.asarray(ndimage.gaussian_filter1d(volume, sigma, axis=axis, mode="wrap"), np.float32)


def _smooth_noise(rng: _Rng, shape: _Shape, sigma: float) -> _Volume:
    """Periodic Gaussian noise of unit variance with correlation length `sigma`, (z, y, x)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis in range(3):
        noise = _blur(noise, sigma, axis)
    noise /= noise.std()
    return noise


def _in_unit_ball(rng: _Rng, count: int) -> _Floats:
    """Points uniform in the unit ball, (count, 3)."""
    points = rng.standard_normal((count, 3))
    points *= (np.cbrt(rng.random(count)) / np.linalg.norm(points, axis=1))[:, None]
    return points


def _deposit(points: _Floats, weights: _Floats, shape: _Shape) -> _Volume:
    """Fluorophores at `points`, (n, 3), binned into the periodic field, (z, y, x)."""
    z, y, x = (np.rint(points[:, a]).astype(np.int64) % shape[a] for a in range(3))
    flat = (z * shape[1] + y) * shape[2] + x
    return np.bincount(flat, weights, math.prod(shape)).reshape(shape).astype(np.float32)


def _number(density_um: float, shape: _Shape, voxel: float) -> int:
    """How many objects a field holds at a density per µm³."""
    return max(1, round(density_um * math.prod(shape) * voxel**3))


def _paint_beads(rng: _Rng, shape: _Shape, voxel: float) -> _Volume:
    # In coarse voxels the spacing is held in voxels, or beads would fill the volume.
    count = _number(max(7.0, 12.0 * voxel) ** -3, shape, voxel)
    centres = np.repeat(rng.random((count, 3)) * shape, _FLUOROPHORES_PER_BEAD, axis=0)
    offsets = _in_unit_ball(rng, len(centres)) * (0.5 * BEAD_DIAMETER_UM / voxel)
    brightness = np.repeat(rng.lognormal(0.0, 0.25, count), _FLUOROPHORES_PER_BEAD)
    return _deposit(centres + offsets, brightness, shape)


class _Tubes(NamedTuple):
    """Curved tubes sampled along their centre lines; lengths in µm."""

    points: _Floats  # (tubes, samples, 3)
    radius: _Floats  # (tubes, samples)
    brightness: _Floats  # (tubes,)


_TUBE_STEP_UM = 0.25


def _curves(rng: _Rng, starts: _Floats, length_um: float) -> _Floats:
    """Smooth random walks from `starts`, (n, 3), as (n, samples, 3), µm."""
    # The tangent is a stationary isotropic Gaussian process (slow turns, a finer wiggle) made a
    # unit vector, so that no direction is preferred anywhere along the curve.
    noise = rng.standard_normal((2, len(starts), math.ceil(length_um / _TUBE_STEP_UM), 3))
    tangent = np.zeros_like(noise[0])
    for part, scale_um, amplitude in zip(noise, (12.0, 2.5), (1.0, 0.25), strict=True):
        steps = scale_um / _TUBE_STEP_UM
        smooth = ndimage.gaussian_filter1d(part, steps, axis=1, mode="wrap", truncate=3)
        # sqrt(2 sigma sqrt(pi)) undoes the loss of variance by the filter.
        tangent += amplitude * math.sqrt(2.0 * steps * math.sqrt(math.pi)) * smooth
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True)
    return starts[:, None, :] + np.cumsum(tangent, axis=1) * _TUBE_STEP_UM


def _dendrites(rng: _Rng, somata: _Floats) -> _Tubes:
    points = _curves(rng, np.repeat(somata, 5, axis=0), 90.0)
    taper = np.linspace(1.0, 0.35, points.shape[1])
    radius = rng.uniform(0.7, 1.2, (len(points), 1)) * taper
    return _Tubes(points, radius, rng.uniform(0.5, 1.0, len(points)))


def _axons(rng: _Rng, count: int, field_um: _Floats) -> _Tubes:
    points = _curves(rng, rng.random((count, 3)) * field_um, 120.0)
    radius = rng.uniform(0.2, 0.4, (count, 1)) * np.ones(points.shape[1])
    varicose = (rng.random(radius.shape) < _TUBE_STEP_UM / 7.0).astype(np.float64)
    steps = 0.5 / _TUBE_STEP_UM
    bumps = ndimage.gaussian_filter1d(varicose, steps, axis=1) * steps * math.sqrt(2.0 * math.pi)
    radius *= 1.0 + 1.2 * np.minimum(bumps, 1.0)
    return _Tubes(points, radius, rng.lognormal(-0.5, 0.5, count))


def _fill_tubes(rng: _Rng, tubes: _Tubes, shape: _Shape, voxel: float) -> _Volume:
    radius = (tubes.radius / voxel).ravel()
    per_sample = _FLUOROPHORES_PER_VOXEL * math.pi * radius**2 * (_TUBE_STEP_UM / voxel)
    sample = np.repeat(np.arange(radius.size), rng.poisson(per_sample))
    points = (tubes.points.reshape(-1, 3) / voxel)[sample]
    points += _in_unit_ball(rng, len(sample)) * radius[sample, None]
    return _deposit(points, tubes.brightness[sample // tubes.radius.shape[1]], shape)


def _fill_somata(rng: _Rng, centres_um: _Floats, shape: _Shape, voxel: float) -> _Volume:
    """Ellipsoids of random orientation with a dimmer nucleus."""
    total = np.zeros(shape, np.float32)
    for centre in centres_um / voxel:
        axes = rng.uniform(3.2, 5.5, 3) / voxel
        ball = _in_unit_ball(rng, round(_FLUOROPHORES_PER_VOXEL * math.pi * 4 / 3 * axes.prod()))
        weights = np.where(np.linalg.norm(ball, axis=1) < 0.55, 0.6, 1.0) * rng.uniform(0.5, 1.0)
        points = centre + (ball * axes) @ Rotation.random(rng=rng).as_matrix()
        total += _deposit(points, weights, shape)
    return total


def _paint_neurites(rng: _Rng, shape: _Shape, voxel: float) -> _Volume:
    field_um = np.multiply(shape, voxel)
    somata = rng.random((_number(40.0**-3, shape, voxel), 3)) * field_um
    signal = _fill_somata(rng, somata, shape, voxel)
    signal += _fill_tubes(rng, _dendrites(rng, somata), shape, voxel)
    axons = _axons(rng, _number(2.0e-4, shape, voxel), field_um)
    signal += _fill_tubes(rng, axons, shape, voxel)
    # Neurites and somata that meet share the space: no voxel holds more than its fill of dye.
    np.negative(np.expm1(signal / -_FLUOROPHORES_PER_VOXEL), out=signal)
    signal *= np.exp(0.3 * _smooth_noise(rng, shape, 0.6 / voxel))
    return signal


def _spaced_points(rng: _Rng, shape: _Shape, spacing: float) -> _Floats:
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

    seeds: _Floats  # (cells, 3)
    to_nucleus: _Floats  # (cells, 3, 3): maps the nucleus to the unit ball
    nucleus_radius: _Floats  # (cells,): mean semi-axis
    brightness: _Floats  # (cells, 2): of cytoplasm and nucleus


def _draw_cells(rng: _Rng, shape: _Shape, voxel: float) -> _Cells:
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


def _paint_cells(rng: _Rng, shape: _Shape, voxel: float) -> _Volume:
    cells = _draw_cells(rng, shape, voxel)
    tree = cKDTree(cells.seeds)
    warp = [_smooth_noise(rng, shape, 2.5 / voxel) * (0.6 / voxel) for _ in range(3)]
    chromatin = np.exp(0.35 * _smooth_noise(rng, shape, 0.5 / voxel))
    chromatin *= np.where(_smooth_noise(rng, shape, 0.8 / voxel) > 1.6, 0.35, 1.0)
    signal = np.empty(shape, np.float32)
    # Plane by plane: the query for the nearest cells needs many times a volume's memory.
    y, x = np.indices(shape[1:])
    for z in range(shape[0]):
        points = np.stack([z + warp[0][z], y + warp[1][z], x + warp[2][z]], axis=-1)
        plane = _cell_brightness(cells, tree, points.reshape(-1, 3), chromatin[z].ravel())
        signal[z] = plane.reshape(shape[1:])
    return signal


def _cell_brightness(cells: _Cells, tree: cKDTree, points: _Floats, texture: _Volume) -> _Floats:
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


_PAINTERS: dict[str, Callable[[_Rng, _Shape, float], _Volume]] = {
    "neurites": _paint_neurites,
    "beads": _paint_beads,
    "cells": _paint_cells,
}
