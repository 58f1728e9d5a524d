"""Figures of a restored volume against its truth, and of the model that restored it."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from bead_widths import bead_widths, lonely_beads
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from isosr_models.model_folder import read_description
from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.similarity import SSIM_RADIUS, ssim_map
from isosr_pipeline.evidence.transforms import Transform
from isosr_pipeline.geometry import Box, Zyx, context
from isosr_pipeline.restoring.models import load
from isosr_pipeline.store.volume import Volume

_CUBE = 64
_TIMED_BLOCK = {"cpu": 64, "cuda": 128}


class Scores(BaseModel):
    """Figures of a volume, after a least-squares fit of its intensities to the truth.

    Attributes
    ----------
    psnr_db, ssim, nrmse : float
        See `isosr_pipeline.evidence`.
    ratio : float or None
        Axial over lateral spectral amplitude; None: there is no signal.
    axial_um, lateral_um : float or None
        Median FWHM of beads; None: there are none.
    beads : int
        That were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    psnr_db: float
    ssim: float
    nrmse: float
    ratio: float | None
    axial_um: float | None = None
    lateral_um: float | None = None
    beads: int = 0


def score(
    restored: Path, truth_path: Path, beads: tuple[float, float] | None, voxel_um: float
) -> Scores:
    """Compare a volume with its truth.

    Parameters
    ----------
    restored : Path
        An OME-Zarr store on the grid of the truth; planes beyond its last one are left out.
    truth_path : Path
        A TIFF file.
    beads : tuple of 2 floats or None
        Axial and lateral FWHM of the PSF of the volume before it was restored, in voxels; None:
        it shows no beads.
    voxel_um : float
        Edge of a voxel, µm.
    """
    volume = Volume(restored)
    image = volume.read(0, Box.whole(Zyx(*volume.shape[1:]))).astype(np.float64)
    truth = tifffile.imread(truth_path)[: len(image)].astype(np.float64)
    moments = Moments()
    moments.update(truth, image)
    inside = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
    fitted = moments.gain * image + moments.offset
    similarity = ssim_map(truth, fitted, float(np.ptp(truth)))[inside]
    figures: dict[str, Any] = {
        "psnr_db": moments.psnr(fitted=True),
        "ssim": float(similarity.mean()),
        "nrmse": moments.nrmse(fitted=True),
        "ratio": _spectrum_ratio(image),
    }
    if beads is not None:
        figures |= _widths(image, truth, *beads, voxel_um)
    return Scores(**figures)


def _spectrum_ratio(image: NDArray[np.float64]) -> float | None:
    size = min(_CUBE, *image.shape)
    ratio = SpectrumRatio()
    for origin in itertools.product(*(range(0, n - size + 1, size // 2) for n in image.shape)):
        ratio += SpectrumRatio.of(Transform(image[tuple(slice(o, o + size) for o in origin)]))
    return ratio.ratio if math.isfinite(ratio.ratio) else None


def _widths(
    image: NDArray[np.float64],
    truth: NDArray[np.float64],
    axial: float,
    lateral: float,
    voxel_um: float,
) -> dict[str, Any]:
    """Fit the same beads whatever the volume, and once more in a box of the size that is found."""
    centres = lonely_beads(truth, axial, lateral)
    found = bead_widths(image, centres, axial, lateral)
    if found.beads:
        found = bead_widths(image, centres, found.axial, found.lateral)
    if not found.beads:
        return {}
    return {
        "axial_um": found.axial * voxel_um,
        "lateral_um": found.lateral * voxel_um,
        "beads": found.beads,
    }


def restoring_rate(model: Path) -> float:
    """Measure how many voxels a second the restorer of a model gives, halos left out."""
    restorer = load(str(model), "auto", "frozen", "32")
    edge = _TIMED_BLOCK[restorer.device.type]
    block = context(Box.whole(Zyx(edge, edge, edge)), restorer.halo, restorer.stride)
    voxels = torch.rand((1, 1, *block.read.shape))
    fastest = math.inf
    for _ in range(2):
        begin = time.perf_counter()
        # What comes back to the processor is there.
        restorer(voxels, block.keep.slices).cpu()
        fastest = min(fastest, time.perf_counter() - begin)
    return edge**3 / fastest


def parameters(model: Path) -> int:
    """Count the trained parameters of the network that restores."""
    network = read_description(model).network.build()
    return sum(weights.numel() for weights in network.parameters())
