"""Run: convert, train, restore and evaluate one brain; goes on where it stopped."""

from __future__ import annotations

from functools import partial

from isosr_cluster.clients import open_client
from isosr_models.model_folder import read_description
from isosr_pipeline.brain import Brain
from isosr_pipeline.devices import cluster_for
from isosr_pipeline.errors import MissingInputError
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.restoring.restoration import check_restoring
from isosr_pipeline.sources import split_location
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.steps.evaluate import Evaluation, evaluate
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import check_training, train


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
    model = brain.trained_model
    convert(
        brain.source,
        brain.store,
        brain.convert,
        partial(open_client, brain.cluster, brain.workers),
        if_exists="resume",
        reporter=reporter,
    )
    if brain.model is None:
        train([brain.store], model, brain.train, if_exists="resume", reporter=reporter)
    restore(
        brain.store,
        str(model),
        brain.restored,
        brain.restore,
        cluster_for(brain.restore.device, brain.cluster, brain.workers),
        if_exists="resume",
        reporter=reporter,
    )
    evaluation = evaluate(
        brain.store,
        brain.restored,
        brain.evaluate,
        cluster_for("cpu", brain.cluster, brain.workers),
        reporter=reporter,
    )
    brain.evaluation.write_text(f"{evaluation.model_dump_json(indent=2)}\n", encoding="utf-8")
    return evaluation


def check_brain(brain: Brain) -> None:
    """Check what later steps need before the first one begins, which checks the source itself.

    Raises
    ------
    InputError, ModelFormatError
        When an input is missing or a parameter can't be used.
    """
    if brain.model is None:
        check_training(brain.train, brain.trained_model)
    else:
        read_description(brain.model)
    check_restoring(brain.restore)
    if brain.evaluate.reference is not None:
        reference, _array = split_location(brain.evaluate.reference)
        if not reference.exists():
            raise MissingInputError(f"evaluate.reference: {reference} does not exist")
