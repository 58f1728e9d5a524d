"""Restore: a trained model over a whole volume, region by region on a cluster."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isosr_cluster.clients import OpenClient
from isosr_models.precision import Precision
from isosr_pipeline.engine.output import Output, begin_output, check_output, refuse_overlap
from isosr_pipeline.errors import InputError
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.empty import cell_borders
from isosr_pipeline.restoring.fitting import (
    Fit,
    ask_workers,
    choose_precision,
    memory_of_block,
)
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
    inputs = [found.volume.path] if model == IDENTITY else [found.volume.path, Path(found.model)]
    refuse_overlap(out, inputs)
    precision = known_precision(settings, out, if_exists)
    if check_output(out, found.history(precision), if_exists) == "finished":
        reporter.say(f"{out} is complete already")
        return
    # The lock is given back last, when no worker of this machine writes any more.
    with ExitStack() as lock, open_client() as client:
        fit = ask_workers(client, found.model, settings.device, statistics_of(settings))
        precision = precision or choose_precision(settings, fit)
        memory = memory_of_block(client, fit, found.region_bytes)
        job = restoring_job(found, out, found.scheme(memory / fit.factor), fit, precision)
        history = found.history(precision)
        output = lock.enter_context(
            begin_output(out, found.spec, found.regions, history, if_exists)
        )
        output.fill(client, job, reporter, _LABEL, timeout=60 * settings.timeout)
        figures = _figures(output)
        seams = _seams(found, output, job.scheme)
        figures["seams"] = seams.model_dump(mode="json")
        output.finish(output.windows(_LABEL), figures)
    for line in [*_remarks(figures, found), f"seams: {seams}"]:
        reporter.say(line)


def restoring_job(
    found: Restoration, out: Path, scheme: Scheme, fit: Fit, precision: Precision
) -> RestoreRegion:
    """Return the job that restores each region.

    Parameters
    ----------
    found : Restoration
    out : Path
    scheme : Scheme
    fit : Fit
        Of the workers; what they all use, those that join later must have too.
    precision : {"32", "bf16"}
    """
    return RestoreRegion(
        store=found.volume.path,
        out=out,
        model=found.model,
        scheme=scheme,
        windows=found.windows,
        channels=found.channels,
        origin=found.box.start,
        floors=found.floors,
        device="cpu" if fit.memory is None else "cuda",
        precision=precision,
        source_id=found.volume.identity,
        weights_sha256=found.description.weights_sha256 if found.description else None,
    )


def known_precision(settings: RestoreSettings, out: Path, if_exists: IfExists) -> Precision | None:
    """Return the precision that an output is to have, where no worker need be asked.

    Parameters
    ----------
    settings : RestoreSettings
    out : Path
    if_exists : {"refuse", "resume", "overwrite"}

    Returns
    -------
    {"32", "bf16"} or None
        What is asked for, or what the output was begun in; None: what the workers have.
    """
    if settings.precision != "auto":
        return settings.precision
    try:
        own = Volume(out).attributes if if_exists == "resume" else None
    except InputError:
        return None  # nothing is there, or what `check_output` will refuse
    recorded = own.history[-1].parameters.get("precision") if own and own.history else None
    return recorded if recorded in ("32", "bf16") else None


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
    if found.floors:
        borders = borders.joined(cell_borders(found.box))
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
