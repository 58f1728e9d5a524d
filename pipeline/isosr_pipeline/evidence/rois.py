"""2D regions of interest: sections in which the volumes are compared with the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.places import Places
from isosr_pipeline.evidence.reference import Reference
from isosr_pipeline.evidence.sections import PLANES
from isosr_pipeline.evidence.similarity import ms_ssim
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import Grid, IsotropicView
from isosr_pipeline.roi import RegionOfInterest

EDGE = 192
"""Edge in voxels of a region that is drawn: enough for the five scales of MS-SSIM."""

MOST_VOXELS = 1 << 22
"""Voxels of a region that is given, at the most."""


@dataclass(frozen=True)
class Regions:
    """Where regions of interest lie.

    Parameters
    ----------
    boxes : tuple of Box
        In voxels of the restored volume, one voxel thick across their plane.
    how : {"given", "signal", "anywhere"}
        Given by the user; drawn where the input shows something; or from everywhere, since it
        could not be told where that is.
    """

    boxes: tuple[Box, ...]
    how: str


def plane_of(box: Box) -> str:
    """Return the plane of a region, of `PLANES`."""
    across = box.shape.index(1)
    return next(name for name, axes in PLANES.items() if across not in axes)


def given_regions(
    regions: Sequence[RegionOfInterest], view: IsotropicView, origin: tuple[float, float, float]
) -> Regions:
    """Return the regions that a user gives.

    Parameters
    ----------
    regions : sequence of RegionOfInterest
    view : IsotropicView
        Of the restored volume.
    origin : tuple of 3 floats
        Centre of its first voxel in µm, order z, y, x.

    Raises
    ------
    InputError
        When one is no section of the volume, or too large.
    """
    boxes: list[Box] = []
    for region in regions:
        box = region.box(view, origin)
        if 1 not in box.shape:
            raise InputError(
                f"roi is {region}: {tuple(box.shape)} voxels, and figures are of sections; give "
                f"one that is a voxel thick along {', '.join(AXES[:2])} or {AXES[2]}, such as "
                "20:21,0:200,0:200"
            )
        if box.voxels > MOST_VOXELS:
            raise InputError(
                f"roi is {region}: {box.voxels} voxels, and {MOST_VOXELS} are the most that are "
                "compared at once; give several smaller ones"
            )
        boxes.append(box)
    return Regions(tuple(boxes), "given")


def draw_regions(places: Places, count: int, seed: int) -> Regions:
    """Draw regions where the input shows something, as many in XY as in XZ and YZ.

    Parameters
    ----------
    places : Places
        Of the volume before restoration.
    count : int
        In all, at least 3; fewer where the volume has no more. What 3 does not divide is given to
        the first planes.
    seed : int
    """
    boxes: list[Box] = []
    how = "signal"
    for index, axes in enumerate(PLANES.values()):
        edges = (min(EDGE, n) if axis in axes else 1 for axis, n in enumerate(places.shape))
        shape = Zyx(*edges)
        each = count // len(PLANES) + (index < count % len(PLANES))
        starts = places.draw(shape, each, seed)
        if starts is None:
            how = "anywhere"
            starts = places.draw_anywhere(shape, each, seed)
        boxes += [Box(Zyx(0, 0, 0), shape).shifted(start) for start in starts]
    return Regions(tuple(boxes), how)


@dataclass(frozen=True)
class Fitted:
    """A volume, and the least-squares fit of its intensities to the reference.

    Parameters
    ----------
    image : Grid
        Picklable.
    gain, offset : float
        ``gain * image + offset`` is what is compared.
    """

    image: Grid
    gain: float
    offset: float


@dataclass(frozen=True)
class RegionFigures:
    """Figures of a region, for each of several volumes.

    Attributes
    ----------
    box : Box
    psnr : tuple of float
        In dB.
    ms_ssim : tuple of float or None
        None where the region is too small.
    """

    box: Box
    psnr: tuple[float, ...]
    ms_ssim: tuple[float | None, ...]


@dataclass(frozen=True)
class MeasureRegion:
    """Compares volumes with the reference in a region.

    Parameters
    ----------
    reference : Reference
        Picklable.
    volumes : tuple of Fitted
    channel : int
        Of the volumes.
    data_range : float
        See `ssim_map`.
    """

    reference: Reference
    volumes: tuple[Fitted, ...]
    channel: int
    data_range: float

    def __call__(self, box: Box) -> tuple[RegionFigures, ...]:
        """Read the region of all; one figure in a tuple, so that they add up to a list."""
        truth = np.squeeze(self.reference.read(box).astype(np.float64), box.shape.index(1))
        psnr, similar = [], []
        for volume in self.volumes:
            values = volume.gain * volume.image.read(self.channel, box) + volume.offset
            section = values.reshape(truth.shape)
            psnr.append(section_psnr(truth, section))
            similar.append(ms_ssim(truth, section, self.data_range))
        return (RegionFigures(box, tuple(psnr), tuple(similar)),)


def section_psnr(reference: NDArray[np.float64], image: NDArray[np.float64]) -> float:
    """Return 10·log10(N·max(r)² / Σ(r - t)²) of a section, as in Park et al. 2022.

    Parameters
    ----------
    reference, image : (rows, columns) float64
        r and t, in the same intensity units; N pixels each.

    Returns
    -------
    float
        In dB. Infinite where they are equal; minus infinite where the reference is nowhere
        above 0.
    """
    moments = Moments()
    moments.update(reference, image)
    if moments.reference_max <= 0:
        return -math.inf
    return moments.psnr(fitted=False)
