"""What of a batch is broken in a way that can be seen at once, before any job is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from isosr_cluster.errors import ClusterConfigError, SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.limits import refuse_too_long
from isosr_cluster.slurm.site import Resources, Site
from isosr_models.errors import ModelError
from isosr_models.model_folder import read_description
from isosr_pipeline.batch.chains import (
    Chain,
    job_name,
    jobs_of,
    resources_of,
    script_of,
)
from isosr_pipeline.batch.entries import refuse
from isosr_pipeline.batch.freezing import brain_copy, frozen_text
from isosr_pipeline.batch.records import read_record
from isosr_pipeline.engine.output import check_output
from isosr_pipeline.errors import InputError, MissingInputError, ResumeError
from isosr_pipeline.leading import find_leader
from isosr_pipeline.paths import check_creatable
from isosr_pipeline.restoring.restoration import prepare as prepare_restoration
from isosr_pipeline.sources import split_location
from isosr_pipeline.steps.convert import prepare as prepare_conversion
from isosr_pipeline.steps.restore import known_precision
from isosr_pipeline.steps.run import Step, check_inputs
from isosr_pipeline.training.resuming import is_begun


def check_chains(chains: Sequence[Chain]) -> None:
    """Refuse a batch with brains that can't be done, naming each of them.

    Parameters
    ----------
    chains : sequence of Chain

    Raises
    ------
    InputError
    """
    problems = [f"{c.entry.label}: {text}" for c in chains for text in _problems(c)]
    refuse(problems)
    for chain in chains:
        frozen_text(chain.terms.site, str(chain.terms.path))


def _problems(chain: Chain) -> Iterator[str]:
    """Yield what is wrong with a brain; one thing, as others may follow from it."""
    try:
        _check(chain)
    except (InputError, ResumeError, ModelError, ClusterConfigError) as error:
        yield str(error)


def _check(chain: Chain) -> None:
    brain, terms = chain.entry.brain, chain.terms
    if not chain.live:
        _check_complete(chain)
    if not chain.missing:
        return
    _check_live(chain)
    if "convert" in chain.missing:
        source, _array = split_location(brain.source)
        if not source.exists():
            raise MissingInputError(f"source: {source} does not exist")
    check_inputs(brain)
    # Devices are those of the jobs, not of this machine.
    train = brain.train
    if "train" in chain.missing:
        if train.iterations is None and train.minutes is None:
            raise InputError("train: training has no end; give iterations, minutes or both")
        if train.init is not None and not is_begun(brain.trained_model):
            read_description(train.init)
    for step in chain.missing:
        script_of(chain.entry, step, terms)
    if "convert" in chain.missing and terms.cluster is None and terms.site.cpu is None:
        raise InputError(
            "convert runs in jobs without GPUs, and the site file describes none; add the section "
            "cpu to it, which may name the partition of the GPUs"
        )
    check_creatable(brain.output / "jobs")
    frozen_text(brain, chain.entry.label)


def _check_live(chain: Chain) -> None:
    """Refuse to go on with what run has begun in jobs of a site: no copies were made for it."""
    if (leader := find_leader(chain.entry.brain.output)) is not None:
        raise InputError(
            f"the command run is at work on this brain ({leader}); wait for it, or cancel the "
            "brain first"
        )
    output = chain.entry.brain.output
    record = read_record(output) if chain.live else None
    own = {job.id for job in record.jobs} if record else set()
    # One that was submitted last before an interruption is not recorded, and has its name.
    foreign = any(
        job.id not in own and job.name != job_name(chain.entry, step)
        for step, job in chain.live.items()
    )
    if foreign or (chain.live and not brain_copy(output).is_file()):
        jobs = ", ".join(f"{step} is job {job.id}" for step, job in chain.live.items())
        raise InputError(
            f"the command run is at work on this brain ({jobs}); wait for it, or cancel the brain "
            "first"
        )


def _check_complete(chain: Chain) -> None:
    """Refuse stores that are complete and were made in another way than the brain says now.

    Raises
    ------
    ResumeError
        Naming what differs.
    """
    brain = chain.entry.brain
    source, _array = split_location(brain.source)
    # A source may be gone once it is converted.
    if "convert" not in chain.left and source.exists():
        check_output(brain.store, prepare_conversion(brain.source, brain.convert).history, "resume")
    if not {"convert", "train", "restore"}.intersection(chain.left):
        found = prepare_restoration(brain.store, str(brain.trained_model), brain.restore)
        precision = known_precision(brain.restore, brain.restored, "resume")
        if precision is not None:
            check_output(brain.restored, found.history(precision), "resume")


def check_at_slurm(chains: Sequence[Chain]) -> None:
    """Have SLURM tell whether it would take the jobs, and whether they could ever begin.

    Those that ask for the same are asked about once; of workers it is the walltime alone.

    Parameters
    ----------
    chains : sequence of Chain

    Raises
    ------
    SlurmError
        With SLURM's own message, naming the step.
    """
    asked: list[tuple[Site, Resources]] = []
    for chain, step in _missing(chains):
        terms = chain.terms
        if (one := (terms.site, resources_of(step, chain.entry.brain, terms.site))) not in asked:
            asked.append(one)
            with _naming(chain, step):
                commands.check(script_of(chain.entry, step, terms))
    sections: list[tuple[Site, str]] = []
    for chain, step in _missing(chains):
        terms = chain.terms
        for section, job in jobs_of(step, chain.entry.brain, terms):
            if (terms.site, section) not in sections:
                sections.append((terms.site, section))
                with _naming(chain, step):
                    refuse_too_long(terms.site, section, job)


def _missing(chains: Sequence[Chain]) -> Iterator[tuple[Chain, Step]]:
    return ((chain, step) for chain in chains for step in chain.missing)


@contextmanager
def _naming(chain: Chain, step: Step) -> Iterator[None]:
    """Name the step, and what asks for its jobs, in an error of SLURM's."""
    try:
        yield
    except SlurmError as error:
        raise SlurmError(
            f"nothing is submitted: the job for {step} of {chain.entry.label} would not be taken "
            f"with what {chain.terms.path} asks for: {error}"
        ) from error
