"""Evaluate: figures of a restored volume, with and without a reference, on a cluster."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from distributed import Client

from isosr_cluster.clients import OpenClient
from isosr_pipeline.blur.beads import typical_spot
from isosr_pipeline.engine.output import versions
from isosr_pipeline.evidence.comparing import MeasureMoments, MeasureSimilarity
from isosr_pipeline.evidence.cubes import Cubes, CubeSums, MeasureCube, choose_cubes
from isosr_pipeline.evidence.drift import CoarsePart, slab_borders
from isosr_pipeline.evidence.places import Places
from isosr_pipeline.evidence.reference import Reference, open_reference
from isosr_pipeline.evidence.results import (
    Comparison,
    Drift,
    Evaluation,
    Measuring,
    RoiComparison,
    Sampling,
)
from isosr_pipeline.evidence.rois import Fitted, MeasureRegion, Regions, draw_regions, given_regions
from isosr_pipeline.evidence.spots import (
    MOST_SPOTS,
    FindBrightest,
    FoundSpots,
    MeasuredPlanes,
    MeasureSpots,
    SpotComparison,
    compare_spots,
)
from isosr_pipeline.evidence.summing_up import counts_of, drift_of, figures_of, rois_of, seams_of
from isosr_pipeline.evidence.trusted import TrustFigures, trusted
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.measuring import ReopenedVolume, Value, measure
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.parts import check_channel, complete_volume, restored_part
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.store.volume import Volume

BLOCK = 128
"""Edge in voxels of the blocks that are compared, and of the cubes that are sampled."""


def evaluate(
    store: Path,
    restored: Path,
    settings: EvaluateSettings,
    open_client: OpenClient,
    *,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Compare a volume before and after restoration, block by block.

    With a reference every voxel is compared. All else is told from a bounded number of places,
    however large the volume is, and from the figures that `restore` kept. The figures do not depend
    on how many workers there are. Nothing is kept until all are done.

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
        When the volumes don't lie on the same grid, there is no such channel, or the trust map
        beside the restored one is damaged.
    WorkFailedError
        When a block could not be read or measured.
    InterruptedRunError
        After Ctrl-C or SIGTERM.
    """
    reporter = reporter or SilentReporter()
    pair = _opened(store, restored, settings)
    before, after = pair.sides
    trust = trusted(after.volume, before.volume)
    with open_client() as client:
        return _Measuring(pair, settings, trust, client, reporter).evaluation()


@dataclass(frozen=True)
class _Side:
    """One of the two volumes.

    Parameters
    ----------
    path : Path
        As it was given.
    label : str
        For messages.
    volume : Volume
        Open here.
    part : Part
        What is compared; it travels to workers.
    """

    path: Path
    label: str
    volume: Volume
    part: Part


@dataclass(frozen=True)
class _Pair:
    """Both volumes, and what they are compared with."""

    before: _Side
    after: _Side
    reference: Reference | None
    given: Regions | None

    @property
    def sides(self) -> tuple[_Side, _Side]:
        return self.before, self.after

    @property
    def voxel_um(self) -> float:
        return self.after.part.view.voxel_size[2]


def _opened(store: Path, restored: Path, settings: EvaluateSettings) -> _Pair:
    """Open what is measured, and check that it fits."""
    measured, made = complete_volume(store), complete_volume(restored)
    check_channel(settings.channel, made)
    before = restored_part(measured, made)
    view = IsotropicView(ReopenedVolume.of(made))
    after = Part(view, Box.whole(view.shape), range(made.shape[0]))
    check_channel(before.channels[settings.channel], measured)
    reference = open_reference(settings, made, before.channels[settings.channel])
    given = given_regions(settings.roi, view, made.origin) if settings.roi else None
    return _Pair(
        _Side(store, "input", measured, before),
        _Side(restored, "restored", made, after),
        reference,
        given,
    )


@dataclass(frozen=True)
class _Compared:
    """A volume after the pass over all of its voxels and of the reference's."""

    figures: Comparison
    fitted: Fitted
    data_range: float


@dataclass(frozen=True)
class _Measuring:
    """Takes the figures of both volumes, one kind after the other."""

    pair: _Pair
    settings: EvaluateSettings
    trust: TrustFigures | None
    client: Client
    reporter: Reporter

    def evaluation(self) -> Evaluation:
        before, after = self.pair.sides
        places = Places(before.part, before.volume, self.settings.channel)
        cubes = choose_cubes(places, BLOCK, self.settings.seed)
        sums = [self._sums(side, cubes) if cubes else None for side in self.pair.sides]
        compared = [found for side in self.pair.sides if (found := self._compared(side))]
        figures = [
            figures_of(
                sums[index],
                compared[index].figures if compared else None,
                self.pair.voxel_um,
                side.volume.dtype.kind == "f",
            )
            for index, side in enumerate(self.pair.sides)
        ]
        own, reference = after.volume.attributes, self.pair.reference
        history = own.history if own else []
        return Evaluation(
            store=str(before.path),
            restored=str(after.path),
            settings=self.settings,
            shape=after.part.shape,
            voxel_size_um=after.part.view.voxel_size,
            sampling=cubes and Sampling(edge=cubes.edge, starts=cubes.starts, how=cubes.how),
            before=figures[0],
            after=figures[1],
            rois=self._rois(places, compared),
            drift=self._drift(),
            counts=counts_of(history, after.volume.shape),
            seams=seams_of(history, self.settings.channel),
            reference_channel=None if reference is None else reference.channel,
            spots=self._spots(cubes) if self.settings.spots and cubes else None,
            trust=self.trust,
            measuring=Measuring(
                ended=datetime.now(UTC), versions=versions(), command=tuple(sys.argv[1:])
            ),
        )

    def _sums(self, side: _Side, cubes: Cubes) -> CubeSums:
        job = MeasureCube(side.part, self.settings.channel)
        task = f"spectrum, {side.label}"
        return self._measured(job, cubes, task, f"{task} ({side.path})")

    def _compared(self, side: _Side) -> _Compared | None:
        """Compare with the reference in two passes: the intensity fit, then the similarity."""
        reference = self.pair.reference
        if reference is None:
            return None
        part, channel = side.part, self.settings.channel
        grid = partial(blocks, Box.whole(part.shape), Zyx(BLOCK, BLOCK, BLOCK))
        count = math.prod(-(-length // BLOCK) for length in part.shape)
        task = f"compare, {side.label}"
        where = f"{task} ({side.path} with {reference.image.path})"
        with self.reporter.task(task, 2 * count, "blocks") as advance:
            fit = MeasureMoments(reference, part, channel)
            moments = measure(self.client, fit, grid(), advance, where)
            data_range = moments.reference_max - moments.reference_min or 1.0
            similar = MeasureSimilarity(
                reference, part, channel, moments.gain, moments.offset, data_range
            )
            similarity = measure(self.client, similar, grid(), advance, where)
        figures = Comparison(
            psnr_db=moments.psnr(fitted=True),
            ssim=similarity / moments.count,
            nrmse=moments.nrmse(fitted=True),
            gain=moments.gain,
            offset=moments.offset,
        )
        return _Compared(figures, Fitted(part, moments.gain, moments.offset), data_range)

    def _rois(self, places: Places, compared: Sequence[_Compared]) -> RoiComparison | None:
        """Compare with the reference in sections, those that are given or others."""
        reference = self.pair.reference
        if reference is None:
            return None
        settings = self.settings
        regions = self.pair.given or draw_regions(places, settings.rois, settings.seed)
        volumes = tuple(found.fitted for found in compared)
        job = MeasureRegion(reference, volumes, settings.channel, compared[0].data_range)
        task = "regions of interest"
        where = f"{task} ({self.pair.after.path} with {reference.image.path})"
        with self.reporter.task(task, len(regions.boxes), "regions") as advance:
            found = measure(self.client, job, regions.boxes, advance, where)
        return rois_of(found, regions.how)

    def _drift(self) -> Drift | None:
        first = self.pair.before.part
        borders = slab_borders(first.shape.z, first.view.planes_per_voxel)
        before, after = (
            CoarsePart.of(side.part, side.volume, self.settings.channel) for side in self.pair.sides
        )
        return drift_of(borders, before, after, self.pair.voxel_um)

    def _spots(self, cubes: Cubes) -> SpotComparison:
        """Fit spots of the cubes: the brightest, which tell how large they are, then all."""
        before, after = self.pair.sides
        planes = MeasuredPlanes(before.part, self.settings.channel)
        where = f"({before.path} and {after.path})"
        find = FindBrightest(planes, str(before.path))
        brightest = self._measured(find, cubes, "brightest spots", f"spots {where}")
        typical = typical_spot(planes, 0, brightest, str(before.path))
        if typical is None:
            return compare_spots(FoundSpots(), self.settings.seed)
        height, (z, y, x) = typical
        most = -(-2 * MOST_SPOTS // len(cubes.starts))
        voxel_um = self.pair.voxel_um
        fit = MeasureSpots(planes, after.part, voxel_um, height, (z, y, x), most)
        found = self._measured(fit, cubes, "spots", f"spots {where}")
        return compare_spots(found, self.settings.seed)

    def _measured(self, job: Callable[[Box], Value], cubes: Cubes, task: str, where: str) -> Value:
        with self.reporter.task(task, len(cubes.starts), "cubes") as advance:
            return measure(self.client, job, cubes.boxes, advance, where)
