"""Chains: which jobs a brain needs, which of them it has, and what each asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isosr_cluster.clients import LOCAL
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import JOBS, Driver, driver_script, plain_name, python_of
from isosr_cluster.slurm.site import Kind, Resources, Site
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.freezing import JOBS_FOLDER, brain_copy, site_copy
from isosr_pipeline.batch.lanes import InFlight
from isosr_pipeline.batch.records import LOGS_FOLDER
from isosr_pipeline.brain import Brain
from isosr_pipeline.site_files import kind_for
from isosr_pipeline.steps.run import STEPS, Step
from isosr_pipeline.steps.status import status_of_brain
from isosr_pipeline.steps.train_in_job import training_resources


@dataclass(frozen=True)
class Terms:
    """On what terms jobs are submitted.

    Parameters
    ----------
    site : Site
    path : Path
        Its file.
    workers : int or None
        Worker processes of each brain; None: as the site says.
    cluster : str or None
        Where the work of the steps but training runs; None: in workers that are jobs of the site.
    index : Path or None
        The page that lists the brain, which its last job and one that fails write again; None:
        there is none.
    """

    site: Site
    path: Path
    workers: int | None = None
    cluster: str | None = None
    index: Path | None = None


@dataclass(frozen=True)
class Chain:
    """The chain of a brain, as it stands.

    Parameters
    ----------
    entry : Entry
    terms : Terms
    left : tuple of str
        Steps that are not complete.
    live : dict of str to Job
        Jobs that wait or run, by their steps.
    """

    entry: Entry
    terms: Terms
    left: tuple[Step, ...]
    live: Mapping[Step, Job]

    @property
    def missing(self) -> tuple[Step, ...]:
        """The steps to submit jobs for; none where what is live must end first."""
        without = tuple(step for step in self.left if step not in self.live)
        if not self.live or not without:
            return without
        # A submission that was interrupted is gone on with. Jobs that wait for a step which has
        # none any more are about to be cancelled by SLURM.
        return without if STEPS.index(without[0]) > STEPS.index(self.last_live) else ()

    @property
    def last_live(self) -> Step:
        """The last of the steps that have live jobs."""
        return max(self.live, key=STEPS.index)


def look(entry: Entry, terms: Terms, jobs: Iterable[Job]) -> Chain:
    """Return the chain of a brain as it stands.

    Parameters
    ----------
    entry : Entry
    terms : Terms
    jobs : iterable of Job
        Of this user. They are looked for before the disk is: a step that ends meanwhile is then
        live, complete or both.
    """
    live: dict[Step, Job] = {}
    for job in sorted(jobs, key=lambda job: job.id):
        if not job.ended and (step := step_of(job, entry.tag)):
            live[step] = job
    done = {s.step for s in status_of_brain(entry.brain) if s.state == "complete"}
    if entry.brain.model is not None:
        done.add("train")
    return Chain(entry, terms, tuple(step for step in STEPS if step not in done), live)


def step_of(job: Job, tag: str) -> Step | None:
    """Return which step of a brain a job takes; None for other jobs and for workers.

    Parameters
    ----------
    job : Job
    tag : str
        Of the brain.
    """
    return next((step for step in STEPS if job.comment == f"{tag}:{step}"), None)


def chains_of(jobs: Iterable[Job]) -> list[InFlight]:
    """Return this user's chains in flight, as they were submitted.

    Parameters
    ----------
    jobs : iterable of Job
    """
    chains: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.id):
        tag, _, step = job.comment.rpartition(":")
        if not job.ended and tag.startswith("isosr:") and step in STEPS:
            chains.setdefault(tag, []).append(job)
    return [
        InFlight(str(chain[-1].id), frozenset(map(str, chain[0].after)))
        for chain in sorted(chains.values(), key=lambda chain: chain[-1].id)
    ]


def resources_of(step: Step, brain: Brain, site: Site) -> Resources:
    """Return what the job of a step asks for.

    Parameters
    ----------
    step : str
    brain : Brain
    site : Site

    Raises
    ------
    InputError
        When the site has no jobs for the device that the brain asks for.
    """
    if step == "restore":
        kind_for(brain.restore.device, site, "restore.device")
    if step == "evaluate" and brain.trust:
        kind_for(brain.trust_device, site, "trust.device")
    if step == "train":
        return training_resources(brain.train, site, "train.device")
    return site.leading


def jobs_of(step: Step, brain: Brain, terms: Terms) -> Iterator[tuple[str, Resources]]:
    """Yield what all jobs of a step ask for, its workers' too, with the site file's sections.

    Parameters
    ----------
    step : str
    brain : Brain
    terms : Terms

    Raises
    ------
    InputError
        When the site has no jobs for the device that the brain asks for.
    """
    site = terms.site
    if step == "train":
        yield kind_for(brain.train.device, site), resources_of(step, brain, site)
        return
    yield site.leading_section, site.leading
    for kind in _kinds_of_workers(step, brain, site):
        workers = site.workers(kind)
        if terms.cluster is None and workers is not None:
            yield kind, workers


def _kinds_of_workers(step: Step, brain: Brain, site: Site) -> list[Kind]:
    if step == "restore":
        return [kind_for(brain.restore.device, site)]
    if step != "evaluate" or not brain.trust:
        return ["cpu"]
    return sorted({"cpu", kind_for(brain.trust_device, site)})


def workers_of(brain: Brain, terms: Terms) -> int | None:
    """Return how many workers are asked for; None: as the site says.

    Parameters
    ----------
    brain : Brain
    terms : Terms
    """
    return terms.workers or _workers_elsewhere(brain)


def _workers_elsewhere(brain: Brain) -> int | None:
    """Return how many workers a brain asks for, unless it means processes of one machine."""
    return None if brain.cluster == LOCAL else brain.workers


def script_path(output: Path, step: Step) -> Path:
    """Return where the batch script of a step lies."""
    return output / JOBS_FOLDER / f"{step}.sh"


def log_path(output: Path, step: Step) -> Path:
    """Return where the jobs of a step log to; ``%j`` stands for a job's number."""
    return output / LOGS_FOLDER / f"{step}-%j.log"


def job_name(entry: Entry, step: Step) -> str:
    """Return the name of a step's job."""
    return plain_name(f"{step}-{entry.name}")


def script_of(entry: Entry, step: Step, terms: Terms, after: Sequence[str] = ()) -> str:
    """Write the batch script of a step of a brain.

    Parameters
    ----------
    entry : Entry
    step : str
    terms : Terms
    after : sequence of str
        What its job waits for.

    Raises
    ------
    InputError
        When the site can't do what the brain asks for.
    ClusterConfigError
        When its paths can't be used.
    """
    output = entry.brain.output
    command = [python_of(terms.site), "-m", "isosr_pipeline", "run"]
    command += [str(brain_copy(output)), "--step", step]
    if step == "train":
        command += ["--cluster", LOCAL]
    else:
        command += ["--cluster", terms.cluster or str(site_copy(output))]
        workers = workers_of(entry.brain, terms)
        command += ["--workers", str(workers)] if workers else []
    driver = Driver(
        name=job_name(entry, step),
        comment=f"{entry.tag}:{step}",
        resources=resources_of(step, entry.brain, terms.site),
        command=command,
        folder=output,
        log=log_path(output, step),
        after=after,
        exports={JOBS: entry.tag},
        report=_report(output, terms),
        reports_success=step == STEPS[-1],
    )
    return driver_script(terms.site, driver)


def _report(output: Path, terms: Terms) -> list[str]:
    if terms.index is None:
        return []
    command = [python_of(terms.site), "-m", "isosr_pipeline", "report", str(brain_copy(output))]
    return [*command, "--index", str(terms.index), "--update"]
