"""Beads: the PSF of a microscope, from a volume of beads smaller than it resolves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from isosr_pipeline.blur.beads import find_beads
from isosr_pipeline.blur.spots import fit_spot
from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import VoxelSize
from isosr_pipeline.sources import SelectedSource, open_source, split_location
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.tiffs import check_tiff, write_tiff
from isosr_pipeline.widths import FWHM_PER_SIGMA

_VOXEL_SIZE: TypeAdapter[tuple[float, float, float]] = TypeAdapter(VoxelSize)

_BEAD = FWHM_PER_SIGMA / math.sqrt(20)
"""FWHM of the Gaussian as wide as an even sphere, over the sphere's diameter: along each axis its
variance is a 20th of the diameter's square."""


class BeadWidth(BaseModel):
    """Full widths at half maximum along an axis, of fitted Gaussians, in µm.

    Attributes
    ----------
    mean_um : float
        Over the beads.
    spread_um : float or None
        Their standard deviation; None: of one bead.
    average_um : float
        Of the beads' average.
    less_bead_um : float or None
        `mean_um`, less the width of the beads themselves, in squares; None: that is not known.
    """

    model_config = ConfigDict(frozen=True)

    mean_um: float
    spread_um: float | None
    average_um: float
    less_bead_um: float | None


class BeadPsf(BaseModel):
    """A PSF from beads.

    Attributes
    ----------
    source, out : str
        The volume of beads, and the file of the PSF.
    beads : int
        How many were averaged.
    rejected : dict of str to int
        How many spots were left out, by the reason.
    voxel_size_um : tuple of 3 floats
        Of the volume and of the PSF, order z, y, x.
    shape : tuple of 3 ints
        Of the PSF.
    bead_diameter_um : float or None
    fwhm : dict of str to BeadWidth
        Along ``"z"``, ``"y"`` and ``"x"``.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    out: str
    beads: int
    rejected: dict[str, int]
    voxel_size_um: tuple[float, float, float]
    shape: tuple[int, int, int]
    bead_diameter_um: float | None
    fwhm: dict[str, BeadWidth]


def describe_beads(
    path: Path,
    out: Path,
    *,
    channel: int = 0,
    voxel_size: str | None = None,
    bead_diameter: float | None = None,
    overwrite: bool = False,
) -> BeadPsf:
    """Measure the isolated beads of a volume, and write their average as a TIFF file.

    Parameters
    ----------
    path : Path
        A store, or any source.
    out : Path
        For the PSF, float32, order z, y, x, with its voxel size: about 1 in the middle, and 0 where
        the background is.
    channel : int
    voxel_size : str, optional
        In µm, such as ``"0.2,0.1,0.1"``; in place of what the volume says.
    bead_diameter : float, optional
        In µm.
    overwrite : bool
        Whether to replace a file at `out`.

    Raises
    ------
    InputError
        When a path is not usable, the voxel size is not known, there is no isolated bead, or beads
        are as wide as what was measured.
    OutputExistsError
        When `out` is there and may not be replaced.
    """
    check_tiff(out, overwrite)
    if split_location(path)[0].resolve() == out.resolve():
        raise InputError(f"{out} is given for the beads and for the PSF; give two paths")
    image, size = _opened(path, voxel_size)
    if channel >= image.shape[0]:
        raise InputError(
            f"{path} has {image.shape[0]} channels, and channel {channel} was asked for; they "
            "count from 0"
        )
    found = find_beads(image, channel, str(path))
    average = fit_spot(found.psf)
    if average is None:
        raise InputError(f"{path}: the average of its beads is no spot; give a better volume")
    fitted = np.array([spot.fwhm for spot in found.spots])
    each = zip("zyx", fitted.T, average.fwhm, size, strict=True)
    widths = {axis: _width(w * um, of * um, axis, bead_diameter) for axis, w, of, um in each}
    write_tiff(out, found.psf.astype(np.float32), size)
    z, y, x = found.psf.shape
    return BeadPsf(
        source=str(path),
        out=str(out),
        beads=len(found.spots),
        rejected=dict(found.rejected),
        voxel_size_um=size,
        shape=(z, y, x),
        bead_diameter_um=bead_diameter,
        fwhm=widths,
    )


def _opened(
    path: Path, voxel_size: str | None
) -> tuple[Volume | SelectedSource, tuple[float, float, float]]:
    """Open a volume of beads, and find its voxel size."""
    image: Volume | SelectedSource
    if any((path / name).exists() for name in ("zarr.json", ".zattrs")):
        image = Volume(path)
        image.require_complete()
    else:
        image = open_source(path)
    if voxel_size is not None:
        try:
            return image, _VOXEL_SIZE.validate_python(voxel_size)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"--voxel-size is {voxel_size!r}: {why}") from error
    if image.voxel_size is None:
        raise InputError(f"{path} does not say its voxel size; give it as --voxel-size Z,Y,X")
    return image, image.voxel_size


def _width(
    each: NDArray[np.float64], average: float, axis: str, bead_diameter: float | None
) -> BeadWidth:
    """Sum up the widths along an axis, in µm."""
    mean = float(each.mean())
    less = None
    if bead_diameter is not None:
        own = _BEAD * bead_diameter
        if own >= mean:
            raise InputError(
                f"beads of {bead_diameter:g} µm are as wide as a Gaussian of {own:.3g} µm, and "
                f"what was measured along {axis} has {mean:.3g} µm; mend --bead-diameter or the "
                "voxel size"
            )
        less = math.sqrt(mean**2 - own**2)
    return BeadWidth(
        mean_um=mean,
        spread_um=float(each.std(ddof=1)) if len(each) > 1 else None,
        average_um=average,
        less_bead_um=less,
    )
