"""Lines of an index: what each brain leaves in its output for it, in one small file.

Figures and thumbnails are made once, by the job that has made the results. How far the brain is
since then is told from the files of its jobs, without SLURM and without its volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from isosr_models.errors import ModelError
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.freezing import JOBS_FOLDER
from isosr_pipeline.batch.logs import ending, last_error, shortened
from isosr_pipeline.batch.overview import Overview, overview
from isosr_pipeline.batch.records import JobRecord, read_record
from isosr_pipeline.batch.reporting import UNREADABLE
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.distribution import Result
from isosr_pipeline.paths import make_folder, replacing
from isosr_pipeline.steps.run import STEPS, Step
from isosr_pipeline.steps.status import StepStatus, status_of_brain

EVALUATED = "evaluated"
"""State of a brain all of whose results are there."""

GONE = "gone"
"""State of a brain whose output is not there."""


class Line(Result):
    """What a brain leaves for an index.

    Attributes
    ----------
    format : int
        Version of what the file holds.
    overview : Overview
        Without a state, unless the brain was unreadable.
    step : str or None
        The first step that was not complete; None: all were.
    cancelled : tuple of int
        Jobs that were ended before they could tell how.
    """

    format: Literal[1] = 1
    overview: Overview
    step: Step | None
    cancelled: tuple[int, ...] = ()


def line_path(output: Path) -> Path:
    """Return where a brain leaves its line."""
    return output / JOBS_FOLDER / "overview.json"


def read_line(output: Path) -> Line | None:
    """Read the line of a brain; None where there is none, or not one of this version.

    Parameters
    ----------
    output : Path
    """
    try:
        return Line.model_validate_json(line_path(output).read_bytes())
    except (OSError, ValidationError):
        return None


def write_line(entry: Entry, cancelled: Sequence[int] = ()) -> None:
    """Look at a brain, and write its line, which is there whole or as it was before.

    Parameters
    ----------
    entry : Entry
    cancelled : sequence of int
        Jobs that were ended; those of earlier times are kept.

    Raises
    ------
    OutputPathError
        When it can't be written.
    """
    output = entry.brain.output
    earlier = read_line(output)
    found = overview(entry.name, entry.brain)
    step: Step | None = None
    try:
        step = open_step(status_of_brain(entry.brain), found)
    except (InputError, ModelError, OSError) as error:
        found = found.model_copy(update={"state": UNREADABLE, "why": str(error)})
    known = set(earlier.cancelled if earlier else ())
    line = Line(overview=found, step=step, cancelled=tuple(sorted(known.union(cancelled))))
    make_folder(output / JOBS_FOLDER)
    with replacing(line_path(output)) as partial:
        partial.write_text(f"{line.model_dump_json(indent=1)}\n", encoding="utf-8")


def is_current(entry: Entry) -> bool:
    """Tell whether the line of a brain is there, whole, and younger than its results.

    Parameters
    ----------
    entry : Entry
    """
    line = read_line(entry.brain.output)
    # What could not be read then may be readable by now.
    if line is None or line.overview.state or line.overview.why:
        return False
    written = line_path(entry.brain.output).stat().st_mtime
    made = [path for path in (entry.brain.evaluation, entry.brain.report) if path.is_file()]
    return all(path.stat().st_mtime <= written for path in made)


def standing(name: str, output: Path) -> Overview:
    """Say how a brain stands, by its line and by the files of its jobs; takes no lock.

    Parameters
    ----------
    name : str
        For one whose line is gone; its jobs tell all that is known then.
    output : Path
        The brain's folder of results.
    """
    line = read_line(output)
    found = line.overview if line else Overview(name=name)
    if found.state:
        return found
    try:
        if line is None and not output.is_dir():
            return Overview(name=name, state=GONE, why=f"{output} is not there")
        return _by_jobs(line or Line(overview=found, step=STEPS[0]), output)
    except (InputError, OSError) as error:
        return found.model_copy(update={"state": UNREADABLE, "why": found.why or str(error)})


def open_step(steps: Iterable[StepStatus], found: Overview) -> Step | None:
    """Return the first step of a brain that is not complete; None: all are.

    Parameters
    ----------
    steps : iterable of StepStatus
        All, in their order.
    found : Overview
        Of its results.
    """
    states = zip(STEPS, steps, strict=True)
    step = next((step for step, one in states if one.state != "complete"), None)
    # Figures that came from elsewhere are as good.
    return "evaluate" if step and found.figures else step


def steps_from(step: Step | None) -> tuple[Step, ...]:
    """Return a step and those after it; none for None."""
    return STEPS[STEPS.index(step) :] if step else ()


def with_state(
    found: Overview, step: Step | None, jobs: Iterable[tuple[str, str, str]], otherwise: str
) -> Overview:
    """Say how far a brain is: evaluated where all is done, or its figures are and no job is left.

    Parameters
    ----------
    found : Overview
        Of its results.
    step : str or None
        The first that is not complete.
    jobs : iterable of (str, str, str)
        Step, state and why it is no further, of the jobs from that step on; no more are asked for
        than it takes.
    otherwise : str
        Its state where neither jobs nor figures tell it.
    """
    state, why = (EVALUATED if step is None or found.figures else otherwise), ""
    for name, told, reason in jobs:
        if told != "done":
            state, why = f"{name} {told}", reason
            break
    return found.model_copy(update={"state": state, "why": found.why or why})


def _by_jobs(line: Line, output: Path) -> Overview:
    left = steps_from(line.step)
    record = read_record(output) if left else None
    jobs = [job for step in left if record and (job := record.job(step))]
    otherwise = f"{jobs[-1].step} done" if jobs else f"{line.step} not begun"
    told = ((job.step, *_of_job(job, line.cancelled)) for job in jobs)
    return with_state(line.overview, line.step, told, otherwise)


def _of_job(job: JobRecord, cancelled: Sequence[int]) -> tuple[str, str]:
    told = ending(job.log)
    if told is not None and told[0] == 0:
        return "done", ""
    if job.id in cancelled or (told is not None and told[1] == "TERM"):
        return "cancelled", ""
    if told is not None:
        error = shortened(last_error(job.log) or "", job.log)
        return "failed", error or f"with exit code {told[0]}; see {job.log}"
    return ("running" if job.log.is_file() else "waiting"), ""
