"""Plan: what a run of a brain would do, and what it needs; nothing is written."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distributed import Client

from isosr_cluster.clients import memory_per_worker, tasks_per_worker, worker_addresses
from isosr_models.methods import find_method
from isosr_models.precision import Precision
from isosr_pipeline.brain import Brain
from isosr_pipeline.clusters import TASKS_AT_ONCE, cluster_for
from isosr_pipeline.engine.output import check_output, refuse_overlap
from isosr_pipeline.engine.regions import LIBRARIES
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.progress import Reporter, SilentReporter, byte_count
from isosr_pipeline.restoring.fitting import Fit, ask_workers, choose_precision, memory_of_block
from isosr_pipeline.restoring.intended import architecture_of
from isosr_pipeline.restoring.models import load, untrained
from isosr_pipeline.restoring.redundancy import BlockGrid, block_grid
from isosr_pipeline.restoring.restoration import Outline, outlined, statistics_of
from isosr_pipeline.restoring.restoration import prepare as prepare_restoration
from isosr_pipeline.restoring.schemes import TRIMMED
from isosr_pipeline.restoring.timing import measure_rate
from isosr_pipeline.settings import Device
from isosr_pipeline.site_files import device_on, is_site_file, kind_for, read_site
from isosr_pipeline.steps.convert import Conversion
from isosr_pipeline.steps.convert import prepare as prepare_conversion
from isosr_pipeline.steps.plan_map import Ask, plan_map
from isosr_pipeline.steps.planned import FillingPlan, Plan, RestorePlan, TrainPlan, described
from isosr_pipeline.steps.restore import known_precision
from isosr_pipeline.steps.run import check_brain
from isosr_pipeline.steps.status import StepStatus, status_of_brain
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.training.crops import check_crop
from isosr_pipeline.training.settings import RichardsonLucySettings

_HOST_BYTES = 8
"""For each voxel of a block on its way to a GPU: as it is stored, and as it comes back."""

_SECONDS_FOR_THE_OTHERS = 60.0


def plan(brain: Brain, *, reporter: Reporter | None = None) -> Plan:
    """Say what a run of a brain would do, before or after any of its steps.

    Workers of the brain's cluster are asked for their memory, and compute one block of random
    voxels each, and blur and judge one for the trust map; of a SLURM site, those of one job.
    Nothing is written but the logs of such jobs.

    Parameters
    ----------
    brain : Brain
    reporter : Reporter, optional

    Raises
    ------
    IsosrError, ModelError, ClusterError
        What a run would raise before it begins to work.
    """
    reporter = reporter or SilentReporter()
    check_brain(brain)
    conversion = prepare_conversion(brain.source, brain.convert)
    refuse_overlap(brain.store, [conversion.measured.path])
    status = {step.step: step for step in status_of_brain(brain)}
    converted = _is_complete(brain.store, conversion.history)
    if status["train"].state != "complete":
        _check_training(brain, IsotropicView(conversion.image))
    first = None if converted else _convert(brain, conversion, status["convert"], reporter)
    train = _train(brain, IsotropicView(conversion.image), status["train"])
    intended = _intended(brain, conversion, converted, trained=train.state == "complete")
    with ExitStack() as stack:
        # The map is made where the volume is restored: those workers are asked once.
        ask = cache(
            lambda device: stack.enter_context(_workers(brain, device, TASKS_AT_ONCE, reporter))
        )
        last = _restore(brain, intended, conversion.spec.chunk, status["restore"], ask, reporter)
        mapped, no_trust = plan_map(
            brain,
            intended.outline,
            conversion.spec,
            trained=intended.trained,
            restored=intended.complete,
            ask=ask,
            reporter=reporter,
        )
    disk = sum(step.bytes_written for step in (first, last, mapped) if step)
    free = shutil.disk_usage(_existing(brain.output)).free
    return Plan(
        convert=first,
        train=train,
        restore=last,
        trust=mapped,
        no_trust=no_trust,
        output=str(brain.output),
        disk=disk,
        disk_free=free,
        warnings=list(_warnings(disk, free, brain.output, last)),
    )


def _is_complete(path: Path, history: list[Provenance]) -> bool:
    """Tell whether a store is complete, and refuse one that was made from something else."""
    # Whether a store can be created is not known without a trial, which would write.
    return os.path.lexists(path) and check_output(path, history, "resume") == "finished"


@contextmanager
def _workers(
    brain: Brain, device: Device, tasks: int, reporter: Reporter
) -> Iterator[tuple[Client, int]]:
    """Connect to workers that can be asked, and tell how many a run will have."""
    if not is_site_file(brain.cluster):
        with cluster_for(device, brain.cluster, brain.workers, tasks=tasks)() as client:
            yield client, len(worker_addresses(client))
        return
    site = read_site(Path(brain.cluster))
    jobs = site.workers(kind_for(device, site))
    if jobs is None:
        raise AssertionError("a kind that a site has")
    # The others are like it, and a plan must not wait until all of them have begun.
    one = jobs.per_job
    with cluster_for(device, brain.cluster, one, tasks=tasks, say=reporter.say)() as client:
        with suppress(TimeoutError):
            # Together they are slower than one that has the node for itself.
            client.wait_for_workers(one, timeout=_SECONDS_FOR_THE_OTHERS)
        yield client, one * jobs.jobs_for(brain.workers)


def _convert(
    brain: Brain, found: Conversion, status: StepStatus, reporter: Reporter
) -> FillingPlan:
    with _workers(brain, "cpu", 1, reporter) as (client, _count):
        found.require_memory(client)
    spec, regions = found.spec, found.plan
    voxels = spec.shape[0] * math.prod(found.measured.shape[1:])
    return FillingPlan(
        **described(brain.store, spec, regions, status),
        bytes_read=(voxels + regions.read_back(spec)) * spec.dtype.itemsize,
        memory=regions.memory(spec),
    )


def _check_training(brain: Brain, view: IsotropicView) -> None:
    """Refuse crops that can't be trained on, and PSFs that can't be deconvolved with."""
    architecture = architecture_of(brain, view.voxel_size[2])
    if not _is_trained(brain):
        return
    least = find_method(brain.train.method).least_crop
    check_crop(Zyx(*brain.train.crop), view, architecture.stride, least)


def _is_trained(brain: Brain) -> bool:
    return not isinstance(brain.train, RichardsonLucySettings)


def _train(brain: Brain, view: IsotropicView, status: StepStatus) -> TrainPlan:
    settings = brain.train
    return TrainPlan(
        path=status.path,
        state=status.state,
        detail=status.detail,
        iterations=settings.iterations,
        minutes=settings.minutes,
        method=settings.method,
        network=str(architecture_of(brain, view.voxel_size[2])),
        crop=settings.crop if _is_trained(brain) else None,
    )


@dataclass(frozen=True)
class _Intended:
    """What will be restored, or is: `model` as workers are told, `complete` where it is there."""

    outline: Outline
    model: str
    trained: bool
    complete: bool


def _intended(brain: Brain, conversion: Conversion, converted: bool, *, trained: bool) -> _Intended:
    """Decide what is restored, and refuse what can't be."""
    settings = brain.restore.model_copy(
        update={"device": device_on(brain.cluster, brain.restore.device)}
    )
    if trained:
        model = str(brain.trained_model.absolute())
    else:
        voxel_size = IsotropicView(conversion.image).voxel_size[2]
        model = untrained(architecture_of(brain, voxel_size))
    if not (converted and trained):
        restorer = load(model, "cpu", statistics_of(settings), "32")
        outline = outlined(conversion.image, restorer, settings)
        return _Intended(outline, model, trained, complete=False)
    found = prepare_restoration(brain.store, model, settings)
    refuse_overlap(brain.restored, [brain.store, brain.trained_model])
    precision = known_precision(settings, brain.restored, "resume")
    complete = _is_complete(brain.restored, found.history(precision))
    return _Intended(found, model, trained, complete)


def _restore(
    brain: Brain,
    intended: _Intended,
    chunk: Zyx,
    status: StepStatus,
    ask: Ask,
    reporter: Reporter,
) -> RestorePlan | None:
    if intended.complete:
        return None
    outline = intended.outline
    settings = outline.settings
    client, workers = ask(settings.device)
    crew = _Crew.asked(client, workers, outline, intended.model, reporter)
    filling = described(brain.restored, outline.spec, outline.regions, status)
    seconds = crew.seconds(outline, filling["regions"], filling["regions_done"])
    return RestorePlan(
        **filling,
        **_blocks(outline, crew, chunk),
        model=str(brain.trained_model) if intended.trained else None,
        channels=outline.channels,
        roi=(outline.box.start, outline.box.stop) if settings.roi else None,
        scheme=settings.scheme,
        halo=outline.halo if settings.scheme == "exact" else TRIMMED,
        precision=crew.precision,
        block_memory_available=crew.block_memory,
        on_gpu=crew.fit.memory is not None,
        memory_available=crew.memory,
        workers=crew.workers,
        rate=crew.voxels_a_second(outline),
        seconds=seconds,
        skip_empty=settings.skip_empty,
    )


@dataclass(frozen=True)
class _Crew:
    """What the workers of a cluster can do, and how blocks are cut for them.

    `workers` is how many a run will have, and `rate` the multiply-adds of one of them in a second.
    """

    fit: Fit
    precision: Precision
    grid: BlockGrid
    block_memory: int
    memory: int
    workers: int
    tasks: int
    rate: float

    @classmethod
    def asked(
        cls, client: Client, workers: int, outline: Outline, model: str, reporter: Reporter
    ) -> _Crew:
        settings = outline.settings
        fit = ask_workers(client, model, settings.device, statistics_of(settings))
        block_memory = memory_of_block(client, fit, outline.region_bytes)
        scheme = outline.scheme(block_memory / fit.factor)
        grid = block_grid(scheme, outline.box, outline.spec.shard)
        precision = choose_precision(settings, fit)
        asked = len(worker_addresses(client))
        noun = "1 worker computes" if asked == 1 else f"{asked} workers compute"
        reporter.say(f"measuring how fast {noun} a block")
        kept, _read = grid.largest
        rate = measure_rate(client, model, settings.device, scheme.statistics, precision, kept)
        rate /= asked
        memory, tasks = memory_per_worker(client), tasks_per_worker(client)
        return cls(fit, precision, grid, block_memory, memory, workers, tasks, rate)

    def seconds(self, outline: Outline, regions: int, done: int) -> float:
        """Return how long computing the regions that are left takes."""
        left = regions - done
        work = self.grid.work(outline.restorer) * len(outline.channels) * left / regions
        # A region is one worker's.
        return work / (self.rate * min(left, self.workers)) if left else 0.0

    def voxels_a_second(self, outline: Outline) -> float:
        """Return how many voxels of the result a worker computes in a second."""
        return self.rate * outline.box.voxels / self.grid.work(outline.restorer)


def _blocks(outline: Outline, crew: _Crew, chunk: Zyx) -> dict[str, Any]:
    """Return what depends on how regions are cut into blocks."""
    spec, restorer, view, grid = outline.spec, outline.restorer, outline.view, crew.grid
    channels = len(outline.channels)
    kept, read = grid.largest
    needed = restorer.memory(kept, read) * crew.fit.factor
    # Beside what is at the device, each task reads or writes.
    held = 2 * outline.region_bytes
    at_host = needed
    if crew.fit.memory is not None:
        at_host = 0.0
        held += _HOST_BYTES * math.prod(read)
    decoded = grid.decoded(view, chunk)
    return {
        "blocks": len(grid) * channels,
        "block": kept,
        "block_read": read,
        "compute_redundancy": grid.work(restorer) / (restorer.least_work * outline.box.voxels),
        "read_redundancy": decoded / view.measured(outline.box).box.voxels,
        "bytes_read": (decoded * channels + outline.regions.read_back(spec)) * spec.dtype.itemsize,
        "block_memory": int(needed),
        "memory": int(LIBRARIES + at_host + crew.tasks * held),
    }


def _existing(path: Path) -> Path:
    """Return the folder that an output will be made in, or itself."""
    return next(p for p in (path, *path.parents) if p.exists())


def _warnings(disk: int, free: int, output: Path, restore: RestorePlan | None) -> Iterator[str]:
    if disk > free:
        yield (
            f"{output} has {byte_count(free)} free, and up to {byte_count(disk)} are to be "
            "written before compression; make room, or give another output"
        )
    if restore and restore.block_memory > restore.block_memory_available:
        edges = " × ".join(map(str, restore.block))
        yield (
            f"a block of {edges} voxels takes {restore.block_memory / 1e9:.1f} GB, and "
            f"may take {restore.block_memory_available / 1e9:.1f} GB; give a smaller "
            "restore.block, or auto"
        )
