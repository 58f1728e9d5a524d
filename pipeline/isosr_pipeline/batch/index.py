"""The index of a batch: a page that lists its brains, with links to their reports."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from isosr_cluster.slurm.commands import Job
from isosr_pipeline.batch.entries import Entry, Unreadable
from isosr_pipeline.batch.lines import EVALUATED, open_step, steps_from, with_state
from isosr_pipeline.batch.logs import shortened
from isosr_pipeline.batch.overview import Overview, common_figures, overview
from isosr_pipeline.batch.reporting import UNREADABLE, JobReport, report_brains
from isosr_pipeline.engine.output import refuse_overlap
from isosr_pipeline.reporting.history import day_and_time
from isosr_pipeline.reporting.page import check_page, render, write_page


def write_index(
    entries: Sequence[Entry | Unreadable], path: Path, jobs: Mapping[int, Job]
) -> list[Overview]:
    """Look at brains, and write an index as one file, which is there whole or not at all.

    It reads what jobs have made and writes nothing else, so that it may be made at any time, and
    again later.

    Parameters
    ----------
    entries : sequence of Entry or Unreadable
    path : Path
        An HTML file; one that is there is replaced.
    jobs : mapping of int to Job
        Those of this user that SLURM knows.

    Returns
    -------
    list of Overview
        Its lines.

    Raises
    ------
    InputError
        When `path` is no HTML file, is the report of a brain, or lies in a volume.
    OutputPathError
        When the index can't be written.
    """
    refuse_results([entry for entry in entries if isinstance(entry, Entry)], path)
    check_page(path)
    lines = [_looked_at(entry, jobs) for entry in entries]
    write_lines(lines, path)
    return lines


def refuse_results(entries: Sequence[Entry], path: Path) -> None:
    """Refuse a page in place of what brains make.

    Raises
    ------
    InputError
    """
    brains = [entry.brain for entry in entries]
    refuse_overlap(path, [p for b in brains for p in (b.store, b.restored, b.report)])


def write_lines(lines: Sequence[Overview], path: Path) -> None:
    """Write an index of lines that are known.

    Parameters
    ----------
    lines : sequence of Overview
    path : Path

    Raises
    ------
    OutputPathError
        When it can't be written.
    """
    page = render(
        "index.html",
        title="Brains",
        brains=[_Row(line, _relative(line.report, path)) for line in lines],
        figures=common_figures(lines),
        evaluated=sum(line.state == EVALUATED for line in lines),
        written=day_and_time(time.time()),
    )
    write_page(path, page)


class _Row(NamedTuple):
    line: Overview
    link: str


def _looked_at(entry: Entry | Unreadable, jobs: Mapping[int, Job]) -> Overview:
    (told,) = report_brains([entry], jobs)
    if isinstance(entry, Unreadable):
        return Overview(name=entry.label, state=UNREADABLE, why=entry.problem)
    found = overview(entry.name, entry.brain)
    if told.state == UNREADABLE:
        why = found.why or told.problem
        return found.model_copy(update={"state": UNREADABLE, "why": why})
    step = open_step(told.steps, found)
    left = [one for one in told.steps if one.step in steps_from(step)]
    of_jobs = ((one.step, one.job.state, _why(one.job)) for one in left if one.job)
    return with_state(found, step, of_jobs, f"{step} {left[0].state}" if left else "")


def _why(job: JobReport) -> str:
    return shortened(job.error, job.log) if job.error else job.reason


def _relative(report: Path | None, index: Path) -> str:
    """Return the address of a report for an index; empty: there is none."""
    if report is None:
        return ""
    relative = os.path.relpath(report.absolute(), index.absolute().parent)
    # A colon in the first part would be read as that of a scheme.
    return f"./{quote(Path(relative).as_posix())}"
