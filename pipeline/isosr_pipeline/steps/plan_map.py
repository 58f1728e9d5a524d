"""What the trust map of a brain takes, planned before or after any of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distributed import Client
from pydantic import ValidationError

from isosr_cluster.clients import memory_per_worker, tasks_per_worker
from isosr_pipeline.brain import Brain
from isosr_pipeline.engine.regions import LIBRARIES
from isosr_pipeline.errors import NoTrustMapError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.progress import Reporter
from isosr_pipeline.restoring.fitting import Fit
from isosr_pipeline.restoring.restoration import Outline
from isosr_pipeline.settings import Device
from isosr_pipeline.site_files import device_on
from isosr_pipeline.steps.planned import ComparingPlan, MapPlan, described
from isosr_pipeline.steps.run import is_blur_given_since, is_map_of_another
from isosr_pipeline.steps.status import State, StepStatus, missing_results, status_of_store
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.trust.blocks import choose_block, held
from isosr_pipeline.trust.blurs import Blur, ask_for_fit
from isosr_pipeline.trust.intended import intended_blur
from isosr_pipeline.trust.outline import MapOutline, outline_map
from isosr_pipeline.trust.planes import Planes
from isosr_pipeline.trust.planning import MapWork, Rates, measure_rates
from isosr_pipeline.trust.summary import NoTrustMap

Ask = Callable[[Device], tuple[Client, int]]
"""Connects to workers with a device, and tells how many a run will have."""

_HOST_BYTES = 8
"""For each voxel of a block on its way to a GPU and back."""


@dataclass(frozen=True)
class _Made:
    """A volume that will be restored, as `outline_map` sees it."""

    path: Path
    spec: VolumeSpec

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.spec.shape

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        return self.spec.voxel_size

    @property
    def origin(self) -> tuple[float, float, float]:
        return self.spec.origin

    @property
    def channels(self) -> tuple[str, ...]:
        return self.spec.channels


def plan_map(
    brain: Brain,
    outline: Outline,
    measured: VolumeSpec,
    *,
    trained: bool,
    restored: bool,
    ask: Ask,
    reporter: Reporter,
) -> tuple[MapPlan | None, str]:
    """Say what the trust map takes, which the step evaluate makes.

    Parameters
    ----------
    brain : Brain
    outline : Outline
        Of what is restored.
    measured : VolumeSpec
        Of the converted volume.
    trained, restored : bool
        Whether the model, and the restored volume, are there.
    ask : callable
    reporter : Reporter

    Returns
    -------
    tuple of (MapPlan or None, str)
        None where it is complete, or none is made; and why none is.

    Raises
    ------
    IsosrError, ModelError, ClusterError
        What a run would raise.
    """
    if not brain.trust:
        return None, "none is asked for"
    if restored and _is_told(brain):
        return None, _told_reason(brain)
    try:
        blur, what = intended_blur(brain, trained, outline.view.voxel_size[2])
        made = _Made(brain.restored, outline.spec)
        planes = Planes.of_part(outline.view.planes_per_voxel, outline.box, measured.shape[1])
        found = outline_map(made, planes, brain.trust)
    except NoTrustMapError as error:
        return None, str(error)
    status = _status(brain, restored)
    filling = described(brain.trust_map, found.spec, found.regions, status)
    compare = None
    if blur is not None:
        device = device_on(brain.cluster, brain.trust_device)
        crew = _Crew.asked(blur, device, found, outline, ask(device), reporter)
        left = filling["regions"] - filling["regions_done"]
        compare = crew.plan(outline, measured, filling["regions"], left)
    filling |= {"channels": found.channels, "cell": found.cell, "blur": what}
    return MapPlan(**filling, compare=compare), ""


@dataclass(frozen=True)
class _Crew:
    """What the workers of a cluster can do, and how blocks are cut for them.

    `workers` is how many a run will have; the rates are those of one of them.
    """

    found: MapOutline
    work: MapWork
    fit: Fit
    rates: Rates
    memory: int
    tasks: int
    workers: int

    @classmethod
    def asked(
        cls,
        blur: Blur,
        device: Device,
        found: MapOutline,
        outline: Outline,
        there: tuple[Client, int],
        reporter: Reporter,
    ) -> _Crew:
        client, workers = there
        fit = ask_for_fit(client, blur, device)
        reblur = blur.load("cpu")
        block = choose_block(client, fit, reblur.function, found)
        reporter.say("measuring how fast workers compare a block for the trust map")
        rates = measure_rates(client, blur, device, found, block)
        work = MapWork(found, reblur, block, outline.box.start)
        memory, tasks = memory_per_worker(client), tasks_per_worker(client)
        return cls(found, work, fit, rates, memory, tasks, workers)

    def plan(
        self, outline: Outline, measured: VolumeSpec, regions: int, left: int
    ) -> ComparingPlan:
        work, spec, channels = self.work, self.found.spec, len(self.found.channels)
        kept, read = work.grid.largest
        whole = self.rates.seconds(work.blurring, work.judged) * channels
        first = self.rates.seconds(*work.first) * channels
        # A region is one worker's; places are shared by all.
        seconds = whole * left / regions / min(left, self.workers) if left else 0.0
        decoded = work.decoded(outline.spec.chunk) * outline.spec.dtype.itemsize
        decoded += work.decoded_planes(measured.chunk) * measured.dtype.itemsize
        levels = self.found.regions.read_back(spec) * spec.dtype.itemsize
        return ComparingPlan(
            blocks=len(work.grid) * channels,
            block=work.block,
            block_read=read,
            halo=work.reblur.function.halo,
            bytes_read=decoded * channels + levels,
            memory=self._memory(kept, read),
            memory_available=self.memory,
            workers=self.workers,
            rate=math.prod(outline.box.shape) * channels / whole,
            seconds=seconds + first / self.workers,
        )

    def _memory(self, kept: Zyx, read: Zyx) -> int:
        beside = held(self.found, self.work.block)
        at_host = 0.0
        if self.fit.memory is None:
            at_host = self.work.reblur.function.memory(kept, read) * self.fit.factor
        else:
            beside += _HOST_BYTES * math.prod(read)
        return int(LIBRARIES + at_host + self.tasks * beside)


def _status(brain: Brain, restored: bool) -> StepStatus:
    """Tell how far the map has come; one of another restoration is begun anew."""
    path = brain.trust_map
    begun = restored and path.exists() and not is_map_of_another(brain)
    store = status_of_store(path) if begun else None
    state: State = "unfinished" if begun else "not begun"
    return StepStatus(step="trust", state=state, path=str(path), store=store)


def _is_told(brain: Brain) -> bool:
    """Tell whether a run would make no map, as what it comes to is there."""
    return brain.trust_summary not in missing_results(brain) and not is_blur_given_since(brain)


def _told_reason(brain: Brain) -> str:
    """Return why there is no map; empty where there is one."""
    try:
        return NoTrustMap.model_validate_json(brain.trust_summary.read_bytes()).reason
    except ValidationError:
        return ""
