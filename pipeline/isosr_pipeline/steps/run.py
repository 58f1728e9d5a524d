"""Run: convert, train, restore and evaluate one brain; goes on where it stopped."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ValidationError

from isosr_cluster.clients import OpenClient
from isosr_cluster.slurm.scripts import JOBS
from isosr_models.architectures import UNet3dArchitecture
from isosr_models.model_folder import write_durably
from isosr_pipeline.blur.deconvolution import given_psf
from isosr_pipeline.brain import Brain
from isosr_pipeline.clusters import TASKS_AT_ONCE, cluster_for, tag_of
from isosr_pipeline.errors import InputError, MissingInputError, NoTrustMapError, UnknownBlurError
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.evidence.trusted import TrustFigures, trusted
from isosr_pipeline.leading import leading
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.intended import architecture_of
from isosr_pipeline.restoring.restoration import check_restoring
from isosr_pipeline.settings import Device, TrustSettings
from isosr_pipeline.site_files import device_on, is_site_file, read_site
from isosr_pipeline.sources import split_location
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.steps.report import write_report
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.status import missing_results
from isosr_pipeline.steps.train import check_training, train
from isosr_pipeline.steps.train_in_job import train_in_job, training_resources
from isosr_pipeline.steps.trust import trust
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.trust.beside import mismatch
from isosr_pipeline.trust.summary import NoTrustMap

Step = Literal["convert", "train", "restore", "evaluate"]
STEPS: tuple[Step, ...] = get_args(Step)
"""In the order in which they are taken."""


def run(brain: Brain, *, reporter: Reporter | None = None) -> Evaluation:
    """Take a brain all the way; steps that are done are not done again.

    Parameters
    ----------
    brain : Brain
    reporter : Reporter, optional

    Raises
    ------
    IsosrError, ModelError, ClusterError
        What any of the steps raises. What was done until then is kept.
    """
    reporter = reporter or SilentReporter()
    check_brain(brain)
    with _led(brain):
        _convert(brain, reporter)
        if brain.model is None:
            _train(brain, reporter)
        _restore(brain, reporter)
        return _evaluate(brain, reporter)


def run_step(brain: Brain, step: Step, *, reporter: Reporter | None = None) -> None:
    """Take one step of a brain; one that is complete says so.

    Parameters
    ----------
    brain : Brain
    step : {"convert", "train", "restore", "evaluate"}
    reporter : Reporter, optional

    Raises
    ------
    IsosrError, ModelError, ClusterError
        What the step raises. What was done until then is kept.
    """
    with _led(brain):
        _take(brain, step, reporter or SilentReporter())


def _take(brain: Brain, step: Step, reporter: Reporter) -> None:
    if step == "convert":
        _convert(brain, reporter)
    elif step == "train" and brain.model is not None:
        reporter.say(f"{brain.model} is given, so that no model is trained")
    elif step == "train":
        _train(brain, reporter)
    elif step == "restore":
        _restore(brain, reporter)
    else:
        _evaluate(brain, reporter)


def _led(brain: Brain) -> AbstractContextManager[None]:
    """Say who replaces the jobs of a site when they end, where that is no job of a chain itself."""
    is_led = is_site_file(brain.cluster) and JOBS not in os.environ
    return leading(brain.output) if is_led else nullcontext()


def check_brain(brain: Brain) -> None:
    """Check what later steps need before the first one begins, which checks the source itself.

    Raises
    ------
    InputError, ModelFormatError
        When an input is missing or a parameter can't be used.
    """
    if brain.model is None and is_site_file(brain.cluster):
        training_resources(brain.train, read_site(Path(brain.cluster)), "train.device")
    elif brain.model is None:
        check_training(brain.train, brain.trained_model)
    check_inputs(brain)


def check_inputs(brain: Brain) -> None:
    """Check what can be told on any machine, whatever its devices.

    Raises
    ------
    InputError, ModelFormatError
        When a model or reference is missing, or a parameter of restoring can't be used.
    """
    if brain.model is None and isinstance(brain.train, RichardsonLucySettings):
        # How far it reaches, the voxels of the volume will tell.
        given_psf(brain.train)
        check_restoring(brain.restore, 0, False)
    else:
        network = architecture_of(brain)
        published = isinstance(network, UNet3dArchitecture)
        check_restoring(brain.restore, network.receptive_radius, published)
    if brain.evaluate.reference is not None:
        reference, _array = split_location(brain.evaluate.reference)
        if not reference.exists():
            raise MissingInputError(f"evaluate.reference: {reference} does not exist")


def _convert(brain: Brain, reporter: Reporter) -> None:
    convert(
        brain.source,
        brain.store,
        brain.convert,
        _cluster(brain, "cpu", reporter, tasks=1),
        if_exists="resume",
        reporter=reporter,
    )


def _cluster(
    brain: Brain, device: Device, reporter: Reporter, *, tasks: int = TASKS_AT_ONCE
) -> OpenClient:
    return cluster_for(
        device,
        brain.cluster,
        brain.workers,
        tasks=tasks,
        logs=brain.logs,
        tag=tag_of(brain.output),
        say=reporter.say,
    )


def _train(brain: Brain, reporter: Reporter) -> None:
    stores, model = [brain.store], brain.trained_model
    # A job would wait in the queue for a moment's work.
    is_quick = isinstance(brain.train, RichardsonLucySettings)
    if is_quick or not is_site_file(brain.cluster):
        train(stores, model, brain.train, if_exists="resume", reporter=reporter)
        return
    site = read_site(Path(brain.cluster))
    train_in_job(
        stores,
        model,
        brain.train,
        site,
        reporter,
        if_exists="resume",
        logs=brain.logs,
        tag=tag_of(brain.output),
    )


def _restore(brain: Brain, reporter: Reporter) -> None:
    device = device_on(brain.cluster, brain.restore.device)
    restore(
        brain.store,
        str(brain.trained_model),
        brain.restored,
        brain.restore.model_copy(update={"device": device}),
        _cluster(brain, device, reporter),
        if_exists="resume",
        reporter=reporter,
    )


def _evaluate(brain: Brain, reporter: Reporter) -> Evaluation:
    """Make what is missing of figures, trust map and report: each shows those before it."""
    found = _measured(brain)
    if found is not None and not missing_results(brain) and not is_blur_given_since(brain):
        reporter.say(f"{brain.evaluation} is complete already: {found.restored} was measured")
        told = _with_map_since(brain, found, reporter)
        if told is not found:
            write_report(told, brain.report, model=brain.trained_model)
        return told
    figures = found or _measure(brain, reporter)
    without = _map_trust(brain, brain.trust, reporter) if brain.trust else None
    figures = _with_trust(brain, figures)
    write_report(
        figures,
        brain.report,
        model=brain.trained_model,
        no_trust=without.reason if without else None,
    )
    return figures


def _measure(brain: Brain, reporter: Reporter) -> Evaluation:
    cluster = _cluster(brain, "cpu", reporter, tasks=1)
    found = evaluate(brain.store, brain.restored, brain.evaluate, cluster, reporter=reporter)
    _write(brain.evaluation, found)
    return found


def _map_trust(brain: Brain, settings: TrustSettings, reporter: Reporter) -> NoTrustMap | None:
    """Make the map, and say why where none can be made of this brain."""
    device = device_on(brain.cluster, brain.trust_device)
    try:
        summary = trust(
            brain.store,
            brain.restored,
            str(brain.trained_model),
            settings.model_copy(update={"device": device}),
            _cluster(brain, device, reporter),
            out=brain.trust_map,
            if_exists="overwrite" if is_map_of_another(brain) else "resume",
            reporter=reporter,
        )
    except NoTrustMapError as error:
        no_blur = isinstance(error, UnknownBlurError)
        way_on = ", or axial_fwhm below trust in the brain file" if no_blur else ""
        reporter.say(f"no trust map is made: {error}{way_on}; trust: false asks for none")
        without = NoTrustMap(restored=str(brain.restored), reason=str(error), blur_unknown=no_blur)
        _write(brain.trust_summary, without)
        return without
    _write(brain.trust_summary, summary)
    return None


def _with_trust(brain: Brain, figures: Evaluation) -> Evaluation:
    """Tell what the trust map comes to, which is made after the figures are kept."""
    return _with(brain, figures, trusted(Volume(brain.restored), Volume(brain.store)))


def _with_map_since(brain: Brain, figures: Evaluation, reporter: Reporter) -> Evaluation:
    """Add what a map comes to that was made by hand since, or by a version that did not add it.

    What is told already stays where the map, or a volume that it is of, is there no more or can't
    be read for the moment.
    """
    try:
        if not brain.trust_map.exists():
            return figures
        trust = trusted(Volume(brain.restored), Volume(brain.store))
    except (InputError, OSError) as error:
        reporter.say(f"what {brain.trust_map} comes to is not looked at again: {error}")
        return figures
    return figures if trust is None else _with(brain, figures, trust)


def _with(brain: Brain, figures: Evaluation, trust: TrustFigures | None) -> Evaluation:
    if trust == figures.trust:
        return figures
    found = figures.model_copy(update={"trust": trust})
    _write(brain.evaluation, found)
    return found


def is_map_of_another(brain: Brain) -> bool:
    """Tell whether the map that is there was made of what has been replaced since.

    Parameters
    ----------
    brain : Brain
    """
    if not brain.trust_map.exists():
        return False
    volumes = (Volume(path) for path in (brain.trust_map, brain.restored, brain.store))
    return mismatch(*volumes) is not None


def is_blur_given_since(brain: Brain) -> bool:
    """Tell whether there is no map for want of a blur, and the brain gives one now.

    Parameters
    ----------
    brain : Brain
    """
    if not brain.trust or brain.trust.axial_fwhm is None:
        return False
    try:
        return NoTrustMap.model_validate_json(brain.trust_summary.read_bytes()).blur_unknown
    except ValidationError:
        return False


def _write(path: Path, found: BaseModel) -> None:
    write_durably(path, f"{found.model_dump_json(indent=2)}\n".encode())


def _measured(brain: Brain) -> Evaluation | None:
    """Return the figures that are there, if they are of this volume and what is asked for."""
    if brain.evaluation in missing_results(brain):
        return None
    try:
        found = Evaluation.model_validate_json(brain.evaluation.read_bytes())
    except ValidationError:
        return None
    asked = (str(brain.store), str(brain.restored), brain.evaluate)
    return found if (found.store, found.restored, found.settings) == asked else None
