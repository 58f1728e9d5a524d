"""Evaluate: figures of a restored volume, with and without a reference, on a cluster."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from distributed import Client
from pydantic import BaseModel, ConfigDict

from isosr_cluster.clients import OpenClient
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import Grid, IsotropicView, Part
from isosr_pipeline.measuring import (
    Image,
    MeasureMoments,
    MeasureSimilarity,
    MeasureSpectrum,
    ReopenedVolume,
    measure,
)
from isosr_pipeline.metrics import MIN_SUBVOLUME
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.parts import check_channel, complete_volume, restored_part
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.store.creation import is_store
from isosr_pipeline.store.volume import Volume

BLOCK = 128
"""Edge in voxels of the blocks that are compared, and of the cubes whose spectra are taken."""

_CUBES_PER_AXIS = 4


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
    open_client: OpenClient,
    *,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Compare a volume before and after restoration, block by block.

    The figures do not depend on how many workers there are. Nothing is kept until all are done.

    Parameters
    ----------
    store, restored : Path
        The measured volume and what `restore` made of it.
    settings : EvaluateSettings
    open_client : callable
        Connects to the cluster, once all else is found to be in order; its workers see all paths.
    reporter : Reporter, optional

    Raises
    ------
    InputError
        When the volumes don't lie on the same grid, or there is no such channel.
    WorkFailedError
        When a block could not be read or measured.
    InterruptedRunError
        After Ctrl-C or SIGTERM.
    """
    reporter = reporter or SilentReporter()
    before, after, reference = _opened(store, restored, settings)
    with open_client() as client:
        figures = [
            _Measured(client, reporter, part, settings.channel, label, path).figures(reference)
            for part, label, path in (
                (before, "input", store),
                (after, "restored", restored),
            )
        ]
    return Evaluation(
        store=str(store),
        restored=str(restored),
        reference=str(settings.reference) if settings.reference else None,
        channel=settings.channel,
        before=figures[0],
        after=figures[1],
    )


def _opened(
    store: Path, restored: Path, settings: EvaluateSettings
) -> tuple[Part, Part, Image | None]:
    """Open what is measured, as it travels to workers, and check that it fits."""
    measured, made = complete_volume(store), complete_volume(restored)
    check_channel(settings.channel, made)
    before = restored_part(measured, made)
    view = IsotropicView(ReopenedVolume.of(made))
    after = Part(view, Box.whole(view.shape), range(made.shape[0]))
    check_channel(before.channels[settings.channel], measured)
    reference = _open_reference(settings.reference, settings.channel, made)
    return before, after, reference


def _open_reference(path: Path | None, channel: int, restored: Volume) -> Image | None:
    if path is None:
        return None
    path = path.absolute()
    reference: Image = (
        ReopenedVolume.of(complete_volume(path)) if is_store(path) else open_source(path)
    )
    if reference.shape[1:] != restored.shape[1:]:
        raise InputError(
            f"{path} has {reference.shape[1:]} voxels, and {restored.path} has "
            f"{restored.shape[1:]}; give a reference on the grid of the restored volume"
        )
    check_channel(channel, reference)
    return reference


@dataclass(frozen=True)
class _Measured:
    """One of the two volumes, and what takes its figures."""

    client: Client
    reporter: Reporter
    image: Grid
    channel: int
    label: str
    path: Path

    def figures(self, reference: Image | None) -> Figures:
        return Figures(
            axial_lateral_ratio=self._ratio(),
            against_reference=self._compared(reference) if reference else None,
        )

    def _ratio(self) -> float | None:
        """Return the axial/lateral ratio over cubes spread evenly through the volume."""
        edge = min(BLOCK, *self.image.shape)
        if edge < MIN_SUBVOLUME:
            return None
        cubes = list(_cubes(self.image.shape, edge))
        task = f"spectrum, {self.label}"
        job = MeasureSpectrum(self.image, self.channel)
        with self.reporter.task(task, len(cubes), "cubes") as advance:
            spectra = measure(self.client, job, cubes, advance, f"{task} ({self.path})")
        return None if math.isnan(spectra.ratio) else spectra.ratio

    def _compared(self, reference: Image) -> Comparison:
        """Compare with the reference in two passes: the intensity fit, then the similarity."""
        shape = self.image.shape
        grid = partial(blocks, Box.whole(shape), Zyx(BLOCK, BLOCK, BLOCK))
        count = math.prod(-(-length // BLOCK) for length in shape)
        task = f"compare, {self.label}"
        where = f"{task} ({self.path} with {reference.path})"
        with self.reporter.task(task, 2 * count, "blocks") as advance:
            fit = MeasureMoments(reference, self.image, self.channel)
            moments = measure(self.client, fit, grid(), advance, where)
            data_range = moments.reference_max - moments.reference_min or 1.0
            similar = MeasureSimilarity(
                reference, self.image, self.channel, moments.gain, moments.offset, data_range
            )
            similarity = measure(self.client, similar, grid(), advance, where)
        return Comparison(
            psnr_db=moments.psnr(fitted=True),
            ssim=similarity / moments.count,
            nrmse=moments.nrmse(fitted=True),
            gain=moments.gain,
            offset=moments.offset,
        )


def _cubes(shape: Zyx, edge: int) -> Iterator[Box]:
    starts = []
    for length in shape:
        count = min(_CUBES_PER_AXIS, -(-length // edge))
        starts.append([int(s) for s in np.linspace(0, length - edge, count).round()])
    for origin in itertools.product(*starts):
        yield Box(Zyx(*origin), Zyx(*(o + edge for o in origin)))
