"""Trust: where a restored volume does not explain the measured one, as a map and in figures."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from distributed import Client

from isosr_cluster.clients import OpenClient
from isosr_pipeline.blur.noise import NoiseModel, estimate_noise
from isosr_pipeline.blur.subvolumes import draw_subvolumes
from isosr_pipeline.engine.output import Output, begin_output, check_output, refuse_overlap
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.measuring import measure
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.settings import IfExists, TrustSettings
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside
from isosr_pipeline.trust.blocks import PLACES, choose_block, place_edge
from isosr_pipeline.trust.blurs import ask_for_fit
from isosr_pipeline.trust.evidence import Terms
from isosr_pipeline.trust.matching import match
from isosr_pipeline.trust.prepared import TrustPlan, plan_trust
from isosr_pipeline.trust.regions import ComparePlace, TrustRegion
from isosr_pipeline.trust.summary import Tally, TrustSummary, read_summary

_LABEL = "trust"
_SEED = 0
_NOISE_EDGE, _NOISE_PLACES = 64, 64


def trust(
    store: Path,
    restored: Path,
    model: str,
    settings: TrustSettings,
    open_client: OpenClient,
    *,
    out: Path | None = None,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> TrustSummary:
    """Map where a restored volume, blurred once more, does not explain the measured one.

    Parameters
    ----------
    store, restored : Path
        The measured volume, and what `restore` made of it.
    model : str
        What it was restored with: a model folder, or ``"identity"``.
    settings : TrustSettings
    open_client : callable
        Connects to the cluster, once all else is found to be in order; its workers see all paths.
    out : Path, optional
        For the map; None: see `map_beside`.
    if_exists : {"refuse", "resume", "overwrite"}
    reporter : Reporter, optional

    Raises
    ------
    NoTrustMapError
        When no blur is known, or no measured plane lies in the restored volume.
    InputError, ModelFormatError
        When the volumes, the model or a parameter doesn't fit the others.
    OutputExistsError, ResumeError
        When `out` exists and may not be overwritten or resumed.
    WorkFailedError
        When some regions could not be judged.
    """
    reporter = reporter or SilentReporter()
    plan = plan_trust(store, restored, model, settings)
    out = (out or map_beside(restored)).absolute()
    models = [] if model == IDENTITY else [Path(model)]
    refuse_overlap(out, [plan.measured.path, plan.restored.path, *models])
    if check_output(out, plan.history, if_exists) == "finished":
        reporter.say(f"{out} is complete already")
        return read_summary(Volume(out))
    # The lock is given back last, when no worker of this machine writes any more.
    with ExitStack() as lock, open_client() as client:
        blur, outline = plan.reblurring.blur, plan.outline
        fit = ask_for_fit(client, blur, settings.device)
        block = choose_block(client, fit, blur.load("cpu").function, outline)
        terms = [_terms(client, plan, channel, reporter) for channel in outline.channels]
        job = TrustRegion(
            reblurring=plan.reblurring,
            out=out,
            channels=outline.channels,
            terms=terms,
            cell=outline.cell,
            block=block,
            threshold=settings.threshold,
            worst=settings.worst,
        )
        output = lock.enter_context(
            begin_output(out, outline.spec, outline.regions, plan.history, if_exists)
        )
        output.fill(client, job, reporter, _LABEL, timeout=60 * settings.timeout)
        summary = _summary(plan, output, terms)
        output.finish(output.windows(_LABEL), summary.model_dump(mode="json"))
    return summary


def _terms(client: Client, plan: TrustPlan, channel: int, reporter: Reporter) -> Terms:
    """Tell the noise of a channel, and fit the intensities of the re-blurred volume to it."""
    measured = plan.reblurring.channels[channel]
    noise = _noise(plan.measured, measured)
    edge = place_edge(plan.reblurring.planes)
    places = draw_subvolumes(plan.restored, channel, edge, PLACES, _SEED)
    job = ComparePlace(plan.reblurring, channel)
    task = f"compare intensities, channel {channel}"
    with reporter.task(task, len(places.starts), "places") as advance:
        where = f"{task} ({plan.restored.path} with {plan.measured.path})"
        pairs = measure(client, job, places.boxes, advance, where)
    is_integer = plan.measured.dtype.kind in "ui"
    return match(pairs, noise, plan.settings.tolerance, is_integer=is_integer)


def _noise(volume: Volume, channel: int) -> NoiseModel:
    places = draw_subvolumes(volume, channel, _NOISE_EDGE, _NOISE_PLACES, _SEED)
    reader = LevelReader(volume)
    return estimate_noise(reader.read(channel, box) for box in places.boxes)


def _summary(plan: TrustPlan, output: Output, terms: list[Terms]) -> TrustSummary:
    tally = Tally(plan.outline.channels, plan.settings.worst)
    tally.add(output.ledger.results(_LABEL))
    return TrustSummary(
        store=str(plan.measured.path),
        restored=str(plan.restored.path),
        map=str(output.volume.path),
        blur=plan.blur,
        cell=plan.outline.cell,
        threshold=plan.settings.threshold,
        tolerance=plan.settings.tolerance,
        channels=tally.channels(terms),
        worst=tally.worst(plan.outline.cell, plan.restored, plan.reblurring.origin),
    )
