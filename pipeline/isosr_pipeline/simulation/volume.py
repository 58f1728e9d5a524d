"""Fluorescence volumes with a known truth: one object, imaged with and without axial blur.

The object is one of `isosr_pipeline.simulation.scenes`; `isosr_pipeline.simulation.optics` blurs
it, and every count is a photon of a Poisson process. Axes are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.simulation.acquisition import Acquisition
from isosr_pipeline.simulation.optics import blur_along_z, blur_by_depth, blur_planes, excitation
from isosr_pipeline.simulation.scenes import SCENES, check_scene, paint
from isosr_pipeline.simulation.scenes.fields import Field, Rng, field_shape

__all__ = ["SCENES", "Acquisition", "Simulated", "simulate"]


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
    _check(scene, shape, seed)
    object_rng, noise_rng, light_rng = np.random.default_rng(int(seed)).spawn(3)

    voxel = acquisition.voxel_size_um
    signal = paint(scene, object_rng, field_shape(shape, voxel), voxel)
    sharp, blurred = _imaged(signal, int(shape[0]), acquisition, light_rng)
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


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check(scene: str, shape: Sequence[int], seed: int) -> None:
    check_scene(scene)
    if len(shape) != 3 or not all(_is_whole(n) and n >= 1 for n in shape):
        raise InputError(
            f"shape: {tuple(shape)} is not three whole numbers above 0; give e.g. (128, 128, 128)"
        )
    if not _is_whole(seed) or seed < 0:
        raise InputError(f"seed: {seed!r} is not a whole number of 0 or more")


def _imaged(
    signal: Field, depth: int, acquisition: Acquisition, light_rng: Rng
) -> tuple[Field, Field]:
    """Return an object under the lateral PSF on all axes, and as the microscope sees it."""
    voxel = acquisition.voxel_size_um
    lateral, axial = acquisition.lateral_fwhm_um / voxel, acquisition.axial_fwhm_um / voxel
    planes = blur_planes(signal, lateral)
    sharp = blur_along_z(planes, lateral)
    if acquisition.stripes:
        light = excitation(light_rng, signal.shape, voxel, acquisition.stripes)
        planes = blur_planes(signal * light, lateral)
    if acquisition.bottom_axial_fwhm_um is None:
        return sharp, blur_along_z(planes, axial)
    return sharp, blur_by_depth(planes, depth, axial, acquisition.bottom_axial_fwhm_um / voxel)
