"""Neurons: somata with tapering dendrites, among axons of varied calibre with varicosities."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from isosr_pipeline.simulation.scenes.fields import (
    Field,
    Floats,
    Rng,
    Shape,
    deposit,
    in_unit_ball,
    number,
    smooth_noise,
)

_FLUOROPHORES_PER_VOXEL = 48.0
_TUBE_STEP_UM = 0.25


class _Tubes(NamedTuple):
    """Curved tubes sampled along their centre lines; lengths in µm."""

    points: Floats  # (tubes, samples, 3)
    radius: Floats  # (tubes, samples)
    brightness: Floats  # (tubes,)


def _curves(rng: Rng, starts: Floats, length_um: float) -> Floats:
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


def _dendrites(rng: Rng, somata: Floats) -> _Tubes:
    points = _curves(rng, np.repeat(somata, 5, axis=0), 90.0)
    taper = np.linspace(1.0, 0.35, points.shape[1])
    radius = rng.uniform(0.7, 1.2, (len(points), 1)) * taper
    return _Tubes(points, radius, rng.uniform(0.5, 1.0, len(points)))


def _axons(rng: Rng, count: int, field_um: Floats) -> _Tubes:
    points = _curves(rng, rng.random((count, 3)) * field_um, 120.0)
    radius = rng.uniform(0.2, 0.4, (count, 1)) * np.ones(points.shape[1])
    varicose = (rng.random(radius.shape) < _TUBE_STEP_UM / 7.0).astype(np.float64)
    steps = 0.5 / _TUBE_STEP_UM
    bumps = ndimage.gaussian_filter1d(varicose, steps, axis=1) * steps * math.sqrt(2.0 * math.pi)
    radius *= 1.0 + 1.2 * np.minimum(bumps, 1.0)
    return _Tubes(points, radius, rng.lognormal(-0.5, 0.5, count))


def _fill_tubes(rng: Rng, tubes: _Tubes, shape: Shape, voxel: float) -> Field:
    radius = (tubes.radius / voxel).ravel()
    per_sample = _FLUOROPHORES_PER_VOXEL * math.pi * radius**2 * (_TUBE_STEP_UM / voxel)
    sample = np.repeat(np.arange(radius.size), rng.poisson(per_sample))
    points = (tubes.points.reshape(-1, 3) / voxel)[sample]
    points += in_unit_ball(rng, len(sample)) * radius[sample, None]
    return deposit(points, tubes.brightness[sample // tubes.radius.shape[1]], shape)


def _fill_somata(rng: Rng, centres_um: Floats, shape: Shape, voxel: float) -> Field:
    """Ellipsoids of random orientation with a dimmer nucleus."""
    total = np.zeros(shape, np.float32)
    for centre in centres_um / voxel:
        axes = rng.uniform(3.2, 5.5, 3) / voxel
        ball = in_unit_ball(rng, round(_FLUOROPHORES_PER_VOXEL * math.pi * 4 / 3 * axes.prod()))
        weights = np.where(np.linalg.norm(ball, axis=1) < 0.55, 0.6, 1.0) * rng.uniform(0.5, 1.0)
        points = centre + (ball * axes) @ Rotation.random(rng=rng).as_matrix()
        total += deposit(points, weights, shape)
    return total


def paint_neurites(rng: Rng, shape: Shape, voxel: float) -> Field:
    """Draw neurons and axons in a field; see `isosr_pipeline.simulation.scenes.paint`."""
    field_um = np.multiply(shape, voxel)
    somata = rng.random((number(40.0**-3, shape, voxel), 3)) * field_um
    signal = _fill_somata(rng, somata, shape, voxel)
    signal += _fill_tubes(rng, _dendrites(rng, somata), shape, voxel)
    axons = _axons(rng, number(2.0e-4, shape, voxel), field_um)
    signal += _fill_tubes(rng, axons, shape, voxel)
    # Neurites and somata that meet share the space: no voxel holds more than its fill of dye.
    np.negative(np.expm1(signal / -_FLUOROPHORES_PER_VOXEL), out=signal)
    signal *= np.exp(0.3 * smooth_noise(rng, shape, 0.6 / voxel))
    return signal
