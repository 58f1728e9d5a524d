"""Lines of an index: what each brain leaves in its output for it, in one small file.

Figures and thumbnails are made once, by the job that has made the results. How far the brain is
since then is told from the files of its jobs, without SLURM and without its volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from isosr_models.errors import ModelError
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.freezing import JOBS_FOLDER
from isosr_pipeline.batch.logs import ending, last_error
from isosr_pipeline.batch.records import JobRecord, read_record
from isosr_pipeline.batch.reporting import UNREADABLE
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.distribution import Result
from isosr_pipeline.paths import make_folder, replacing
from isosr_pipeline.reporting.overview import Overview, overview
from isosr_pipeline.steps.run import STEPS, Step
from isosr_pipeline.steps.status import missing_results, status_of_brain

EVALUATED = "evaluated"
"""State of a brain all of whose results are there."""

GONE = "gone"


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
        step = _first_incomplete(entry)
    except (InputError, ModelError, OSError) as error:
        found = found.model_copy(update={"state": UNREADABLE, "why": str(error)})
    known = set(earlier.cancelled if earlier else ())
    line = Line(overview=found, step=step, cancelled=tuple(sorted(known.union(cancelled))))
    make_folder(output / JOBS_FOLDER)
    with replacing(line_path(output)) as partial:
        partial.write_text(f"{line.model_dump_json(indent=1)}\n", encoding="utf-8")


def is_current(entry: Entry) -> bool:
    """Tell whether the line of a brain is there, and younger than its results.

    Parameters
    ----------
    entry : Entry
    """
    try:
        written = line_path(entry.brain.output).stat().st_mtime
    except OSError:
        return False
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
    if line is None and not output.is_dir():
        return Overview(name=name, state=GONE, why=f"{output} is not there")
    line = line or Line(overview=Overview(name=name), step=STEPS[0])
    found = line.overview
    if found.state:
        return found
    if line.step is None:
        return found.model_copy(update={"state": EVALUATED})
    try:
        state, why = _of_jobs(line, output, line.step)
    except (InputError, OSError) as error:
        state, why = UNREADABLE, str(error)
    return found.model_copy(update={"state": state, "why": found.why or why})


def _first_incomplete(entry: Entry) -> Step | None:
    brain = entry.brain
    states = {one.step: one.state for one in status_of_brain(brain)}
    step = next((step for step in STEPS if states[step] != "complete"), None)
    # Figures that came from elsewhere are as good.
    return "evaluate" if step and brain.evaluation not in missing_results(brain) else step


def _of_jobs(line: Line, output: Path, step: Step) -> tuple[str, str]:
    """Return how far the jobs are from a step on, and why they are no further."""
    record = read_record(output)
    steps = STEPS[STEPS.index(step) :]
    jobs = [job for one in steps if record and (job := record.job(one))]
    for job in jobs:
        state, why = _of_job(job, line.cancelled)
        if state != "done":
            return f"{job.step} {state}", why
    if line.overview.figures:
        return EVALUATED, ""
    return (f"{jobs[-1].step} done" if jobs else f"{step} not begun"), ""


def _of_job(job: JobRecord, cancelled: Sequence[int]) -> tuple[str, str]:
    told = ending(job.log)
    if told is not None and told[0] == 0:
        return "done", ""
    if job.id in cancelled or (told is not None and told[1] == "TERM"):
        return "cancelled", ""
    if told is not None:
        return "failed", last_error(job.log) or f"with exit code {told[0]}; see {job.log}"
    return ("running" if job.log.is_file() else "waiting"), ""
