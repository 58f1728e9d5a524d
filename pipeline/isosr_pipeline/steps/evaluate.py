"""Evaluate: figures of a restored volume, with and without a reference, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import Grid, IsotropicView, Part
from isosr_pipeline.metrics import MIN_SUBVOLUME, SSIM_RADIUS, Moments, SpectrumRatio, ssim_map
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.store.creation import is_store
from isosr_pipeline.store.volume import Volume

BLOCK = 128
"""Edge in voxels of the blocks that are compared, and of the cubes whose spectra are taken."""

_CUBES_PER_AXIS = 4


class Image(Protocol):
    """Anything of shape (c, z, y, x) that is read box by box."""

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box; returns (z, y, x)."""
        ...


class Comparison(BaseModel):
    """Figures of a volume against a reference, after a least-squares intensity fit.

    Attributes
    ----------
    psnr_db : float
        10·log10(max(reference)² / mean squared error), in dB.
    ssim : float
        Mean structural similarity in 3D, Gaussian window of sigma 1.5 voxels.
    nrmse : float
        Root of the mean squared error over the root of the reference's mean square.
    gain, offset : float
        Of the fit ``gain * intensity + offset``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    psnr_db: float
    ssim: float
    nrmse: float
    gain: float
    offset: float


class Figures(BaseModel):
    """Figures of one volume.

    Attributes
    ----------
    axial_lateral_ratio : float or None
        Axial over lateral spectral amplitude: 1 if isotropic, below if blurred along z. None
        where no part of the volume carries signal, or it is thinner than 16 voxels.
    against_reference : Comparison or None
        None without a reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    axial_lateral_ratio: float | None
    against_reference: Comparison | None


class Evaluation(BaseModel):
    """What `evaluate` found.

    Attributes
    ----------
    store, restored, reference : str or None
        Paths.
    channel : int
    before, after : Figures
        Of the measured volume on the isotropic grid, and of the restored one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str
    restored: str
    reference: str | None
    channel: int
    before: Figures
    after: Figures


def evaluate(
    store: Path,
    restored: Path,
    settings: EvaluateSettings,
    *,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Compare a volume before and after restoration, block by block.

    Parameters
    ----------
    store, restored : Path
        The measured volume and what `restore` made of it.
    settings : EvaluateSettings
    reporter : Reporter, optional

    Raises
    ------
    InputError
        When the volumes don't lie on the same grid, or there is no such channel.
    """
    reporter = reporter or SilentReporter()
    measured, made = _complete(store), _complete(restored)
    _check_channel(settings.channel, made)
    before, after = _restored_part(measured, made), IsotropicView(made)
    if before.shape != after.shape:
        raise InputError(
            f"{restored} has {tuple(after.shape)} voxels, and {store} has {tuple(before.shape)} "
            "on the isotropic grid; give the volume that restore made of it"
        )
    _check_channel(before.channels[settings.channel], measured)
    reference = _open_reference(settings, made) if settings.reference else None
    figures = [
        Figures(
            axial_lateral_ratio=_ratio(view, settings.channel, reporter, label),
            against_reference=_compare(reference, view, settings.channel, reporter, label)
            if reference
            else None,
        )
        for view, label in ((before, "input"), (after, "restored"))
    ]
    return Evaluation(
        store=str(store),
        restored=str(restored),
        reference=str(settings.reference) if settings.reference else None,
        channel=settings.channel,
        before=figures[0],
        after=figures[1],
    )


def _complete(path: Path) -> Volume:
    volume = Volume(path)
    volume.require_complete()
    return volume


def _restored_part(measured: Volume, made: Volume) -> Part:
    """Return what of the measured volume was restored, as the restored volume's history tells."""
    view = IsotropicView(measured)
    history = made.attributes.history if made.attributes else []
    box, channels = Box.whole(view.shape), list(range(made.shape[0]))
    if history and history[-1].step == "restore":
        parameters = history[-1].parameters
        start, stop = parameters.get("roi", (box.start, box.stop))
        box = Box(Zyx(*start), Zyx(*stop))
        channels = parameters.get("channels", channels)
    return Part(view, box, channels)


def _check_channel(channel: int, *volumes: Image) -> None:
    for volume in volumes:
        if channel >= volume.shape[0]:
            raise InputError(
                f"{volume.path} has {volume.shape[0]} channels, and channel {channel} was asked "
                "for; they count from 0"
            )


def _open_reference(settings: EvaluateSettings, restored: Volume) -> Image:
    path = Path(settings.reference or "")
    reference: Image = _complete(path) if is_store(path) else open_source(path)
    if reference.shape[1:] != restored.shape[1:]:
        raise InputError(
            f"{path} has {reference.shape[1:]} voxels, and {restored.path} has "
            f"{restored.shape[1:]}; give a reference on the grid of the restored volume"
        )
    _check_channel(settings.channel, reference)
    return reference


def _ratio(view: Grid, channel: int, reporter: Reporter, label: str) -> float | None:
    """Return the axial/lateral ratio over cubes spread evenly through a volume."""
    edge = min(BLOCK, *view.shape)
    if edge < MIN_SUBVOLUME:
        return None
    spectra = SpectrumRatio()
    cubes = list(_cubes(view.shape, edge))
    with reporter.task(f"spectrum, {label}", len(cubes), "cubes") as advance:
        for cube in cubes:
            spectra.update(view.read(channel, cube))
            advance(1, "")
    return None if math.isnan(spectra.ratio) else spectra.ratio


def _cubes(shape: Zyx, edge: int) -> Iterator[Box]:
    starts = []
    for length in shape:
        count = min(_CUBES_PER_AXIS, -(-length // edge))
        starts.append([int(s) for s in np.linspace(0, length - edge, count).round()])
    for origin in itertools.product(*starts):
        yield Box(Zyx(*origin), Zyx(*(o + edge for o in origin)))


def _compare(
    reference: Image, view: Grid, channel: int, reporter: Reporter, label: str
) -> Comparison:
    """Compare with the reference in two passes: the intensity fit, then the similarity."""
    parts = list(blocks(Box.whole(view.shape), Zyx(BLOCK, BLOCK, BLOCK)))
    moments = Moments()
    similarity = 0.0
    with reporter.task(f"compare, {label}", 2 * len(parts), "blocks") as advance:
        for block in parts:
            moments.update(reference.read(channel, block), view.read(channel, block))
            advance(1, "")
        data_range = moments.reference_max - moments.reference_min or 1.0
        for block in parts:
            around = block.grown(SSIM_RADIUS).clipped(view.shape)
            fitted = moments.gain * view.read(channel, around) + moments.offset
            ssim = ssim_map(reference.read(channel, around), fitted, data_range)
            similarity += float(ssim[block.relative_to(around.start).slices].sum())
            advance(1, "")
    return Comparison(
        psnr_db=moments.psnr(fitted=True),
        ssim=similarity / moments.count,
        nrmse=moments.nrmse(fitted=True),
        gain=moments.gain,
        offset=moments.offset,
    )
