"""Reports: each step of a brain by what is on disk, and by what SLURM says of its job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import log_of
from isosr_models.errors import ModelError
from isosr_pipeline.batch.chains import log_path, step_of
from isosr_pipeline.batch.entries import Entry, Unreadable
from isosr_pipeline.batch.logs import ending, last_error
from isosr_pipeline.batch.records import ChainRecord, read_record
from isosr_pipeline.errors import InputError
from isosr_pipeline.steps.run import STEPS, Step
from isosr_pipeline.steps.status import StepStatus, status_of_brain

JobState = Literal[
    "waiting", "queued again", "running", "done", "failed", "cancelled", "timed out", "unknown"
]

_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"}
_ENDED: dict[str, JobState] = {
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
    "PREEMPTED": "cancelled",
    "TIMEOUT": "timed out",
    "DEADLINE": "timed out",
}
_NO_EARLIER = "DependencyNeverSatisfied"
FAILURES: tuple[JobState, ...] = ("failed", "timed out", "unknown")
"""States of jobs whose logs tell what went wrong."""

UNREADABLE = "unreadable"
"""State of a brain whose description can't be read, or some file of which is damaged."""


class JobReport(BaseModel):
    """What is known of the job of a step.

    Attributes
    ----------
    id : int
    state : str
        One of `JobState`.
    reason : str
        Why it waits or has ended, in SLURM's words; empty if there is nothing to say.
    node : str
        Where it runs or ran.
    elapsed : str
        How long it has run since it began, or began again, such as ``1-02:03:04``.
    exit_code : int or None
    log : Path
    error : str or None
        Of a job that failed: the last message in its log with what follows it, or the last lines.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    state: JobState
    reason: str = ""
    node: str = ""
    elapsed: str = ""
    exit_code: int | None = None
    log: Path
    error: str | None = None


class StepReport(StepStatus):
    """How far a step has come, and its job.

    Attributes
    ----------
    job : JobReport or None
        The latest; None where none was submitted.
    """

    job: JobReport | None = None


class BrainReport(BaseModel):
    """How far a brain has come.

    Attributes
    ----------
    name, label : str
        Its name, and where it is described; both the latter where that can't be read.
    output : Path or None
        None where its description can't be read.
    step : str or None
        The first that is not complete; None: all are.
    state : str
        Of that step: of its job where there is one, else of what is on disk. `UNREADABLE` where
        that can't be told.
    steps : list of StepReport
        Empty where the brain is unreadable.
    problem : str or None
        Why it is unreadable.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    output: Path | None
    step: str | None
    state: str
    steps: list[StepReport]
    problem: str | None = None


def known_jobs() -> tuple[dict[int, Job], str]:
    """Return what SLURM knows of this user's jobs, and why that may be nothing.

    Returns
    -------
    jobs : dict of int to Job
    remark : str
        Empty where SLURM has answered, or is not there.
    """
    if not commands.is_available():
        return {}, ""
    try:
        return commands.find_jobs(), ""
    except SlurmError as error:
        return {}, f"SLURM does not say how jobs are ({error}); this is from files alone"


def report_brains(
    entries: Iterable[Entry | Unreadable], jobs: Mapping[int, Job]
) -> list[BrainReport]:
    """Say how far many brains have come; one that can't be read does not hide the others.

    Parameters
    ----------
    entries : iterable of Entry or Unreadable
    jobs : mapping of int to Job
        Of this user.
    """
    return [_report_or_problem(entry, jobs) for entry in entries]


def _report_or_problem(entry: Entry | Unreadable, jobs: Mapping[int, Job]) -> BrainReport:
    name, output = entry.label, None
    if isinstance(entry, Entry):
        name, output = entry.name, entry.brain.output
        try:
            return report_brain(entry, jobs)
        except (InputError, ModelError, OSError) as error:
            problem = str(error)
    else:
        problem = entry.problem
    return BrainReport(
        name=name,
        label=entry.label,
        output=output,
        step=None,
        state=UNREADABLE,
        steps=[],
        problem=problem,
    )


def report_brain(entry: Entry, jobs: Mapping[int, Job], now: float | None = None) -> BrainReport:
    """Say how far a brain and its jobs have come; changes nothing.

    Parameters
    ----------
    entry : Entry
    jobs : mapping of int to Job
        Of this user; those of others and forgotten ones are known by their files.
    now : float, optional
        Unix time in seconds.

    Raises
    ------
    InputError
        When a store or the record of its jobs can't be read.
    ModelFormatError
        When the checkpoint of its training can't be read.
    """
    record = read_record(entry.brain.output)
    latest = _latest(entry, jobs)
    steps = []
    for status, step in zip(status_of_brain(entry.brain, now), STEPS, strict=True):
        job = _report(entry, step, record, latest.get(step), jobs)
        steps.append(StepReport(**dict(status), job=job))
    current = next((step for step in steps if step.state != "complete"), None)
    state = "complete"
    if current is not None:
        state = current.job.state if current.job else current.state
    return BrainReport(
        name=entry.name,
        label=entry.label,
        output=entry.brain.output,
        step=current.step if current else None,
        state=state,
        steps=steps,
    )


def _latest(entry: Entry, jobs: Mapping[int, Job]) -> dict[Step, Job]:
    """Return the last job of each step that SLURM knows."""
    found = ((step_of(job, entry.tag), job) for _, job in sorted(jobs.items()))
    return {step: job for step, job in found if step}


def _report(
    entry: Entry,
    step: Step,
    record: ChainRecord | None,
    latest: Job | None,
    jobs: Mapping[int, Job],
) -> JobReport | None:
    recorded = record.job(step) if record else None
    # One that was submitted and not recorded is as good.
    if latest is not None and (recorded is None or latest.id >= recorded.id):
        log = log_of(latest.id, log_path(entry.brain.output, step))
        return _of_job(latest, log)
    if recorded is None:
        return None
    job = jobs.get(recorded.id)
    return _of_files(recorded.id, recorded.log) if job is None else _of_job(job, recorded.log)


def _of_job(job: Job, log: Path) -> JobReport:
    """Report on a job that SLURM knows."""
    state: JobState
    told = ending(log) if job.ended else None
    if job.ended:
        state = _ENDED.get(job.state, "failed")
    elif job.state in _RUNNING:
        state = "running"
    else:
        state = "queued again" if log.exists() else "waiting"
    reason = "an earlier step has failed" if job.reason == _NO_EARLIER else job.reason
    return JobReport(
        id=job.id,
        state=state,
        reason="" if state in ("done", "running") else reason,
        node=job.node,
        elapsed=job.elapsed,
        exit_code=told[0] if told else None,
        log=log,
        error=last_error(log) if state in FAILURES else None,
    )


def _of_files(number: int, log: Path) -> JobReport:
    """Report on a job that SLURM has forgotten, or can't be asked about."""
    told = ending(log)
    if told is None:
        reason = "SLURM does not know it, and it has not said how it ended"
        error = last_error(log)
        return JobReport(id=number, state="unknown", reason=reason, log=log, error=error)
    code, asked = told
    state: JobState = "done" if code == 0 else "cancelled" if asked == "TERM" else "failed"
    error = last_error(log) if state == "failed" else None
    return JobReport(id=number, state=state, exit_code=code, log=log, error=error)
