"""Restore: a trained model over a whole volume, region by region on a cluster."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distributed import Client

from isosr_cluster.clients import OpenClient
from isosr_pipeline.engine.output import Output, begin_output, check_output, refuse_overlap
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.fitting import ask_workers, choose_precision, memory_of_block
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.restoring.regions import RestoreRegion
from isosr_pipeline.restoring.restoration import Restoration, prepare, statistics_of
from isosr_pipeline.restoring.schemes import Scheme
from isosr_pipeline.seams import SeamScore, seam_score
from isosr_pipeline.settings import IfExists, RestoreSettings
from isosr_pipeline.store.volume import Volume

_LABEL = "restore"


def restore(
    store: Path,
    model: str,
    out: Path,
    settings: RestoreSettings,
    open_client: OpenClient,
    *,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> None:
    """Restore a volume to isotropic resolution.

    The output has the input's dtype and intensity units, and isotropic voxels. With a model's
    frozen normalisation the result does not depend on how it is cut into regions and blocks.

    Parameters
    ----------
    store : Path
        A complete OME-Zarr store.
    model : str
        Path of a model folder, or ``"identity"``.
    out : Path
    settings : RestoreSettings
    open_client : callable
        Connects to the cluster, once all else is found to be in order; its workers see all paths.
    if_exists : {"refuse", "resume", "overwrite"}
    reporter : Reporter, optional

    Raises
    ------
    InputError, ModelFormatError
        When the volume, the model or a parameter doesn't fit the others.
    OutputExistsError, ResumeError
        When `out` exists and may not be overwritten or resumed.
    WorkFailedError
        When some regions could not be restored.
    """
    reporter = reporter or SilentReporter()
    found = prepare(store, model, settings)
    out = out.absolute()
    history = found.history()
    inputs = [found.volume.path] if model == IDENTITY else [found.volume.path, Path(found.model)]
    refuse_overlap(out, inputs)
    if check_output(out, history, if_exists) == "finished":
        reporter.say(f"{out} is complete already")
        return
    # The lock is given back last, when no worker writes any more.
    with ExitStack() as lock, open_client() as client:
        job, binding = _job(found, out, client)
        output = lock.enter_context(
            begin_output(out, found.spec, found.regions, history, if_exists, binding=binding)
        )
        output.fill(client, job, reporter, _LABEL, timeout=60 * settings.timeout)
        figures = _figures(output) | binding
        seams = _seams(found, output, job.scheme)
        figures["seams"] = seams.model_dump(mode="json")
        output.finish(output.windows(_LABEL), figures)
    for line in [*_remarks(figures, found), f"seams: {seams}"]:
        reporter.say(line)


def _job(found: Restoration, out: Path, client: Client) -> tuple[RestoreRegion, dict[str, Any]]:
    """Return the job of all regions, and what the workers decided of it."""
    settings = found.settings
    fit = ask_workers(client, found.model, settings.device, statistics_of(settings))
    precision = choose_precision(settings, fit)
    memory = memory_of_block(client, fit, found.region_bytes)
    job = RestoreRegion(
        store=found.volume.path,
        out=out,
        model=found.model,
        scheme=found.scheme(memory / fit.factor),
        windows=found.windows,
        channels=found.channels,
        origin=found.box.start,
        floors=found.floors,
        device=settings.device,
        precision=precision,
    )
    return job, {"precision": precision}


def _figures(output: Output) -> dict[str, Any]:
    figures = {"clipped": 0, "saturated": 0, "passed": 0}
    for result in output.ledger.results(_LABEL):
        for name in figures:
            figures[name] += result[name]
    return figures


def _seams(found: Restoration, output: Output, scheme: Scheme) -> SeamScore:
    """Compare steps across the borders of regions and blocks with those of the input there."""
    before = Part(found.view, found.box, found.channels)
    after = IsotropicView(Volume(output.volume.path))
    borders = scheme.borders(found.box, found.spec.shard)
    return seam_score(before, after, 0, borders, stride=found.restorer.stride)


def _remarks(figures: dict[str, Any], found: Restoration) -> list[str]:
    """Say what a user should know of the result."""
    total = math.prod(found.spec.shape)
    lines = [
        f"{figures[name]} of {total} voxels were {name}: they lay outside {where}"
        for name, where in (
            ("clipped", f"the range of {found.spec.dtype}"),
            ("saturated", "the intensity window"),
        )
        if figures[name]
    ]
    if found.settings.skip_empty:
        lines.append(
            f"{figures['passed'] / total:.1%} of the voxels were only resampled: nothing there "
            "exceeds the floor"
        )
    return lines
