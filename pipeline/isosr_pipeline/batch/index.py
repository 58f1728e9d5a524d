"""The index of a batch: a page that lists its brains, with links to their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isosr_pipeline.batch.entries import Entry, Unreadable
from isosr_pipeline.engine.output import refuse_overlap
from isosr_pipeline.reporting.overview import Overview, common_figures, overview
from isosr_pipeline.reporting.page import check_page, render, write_page


def write_index(entries: Sequence[Entry | Unreadable], path: Path) -> list[Overview]:
    """Write an index as one file, which is there whole or not at all.

    It reads what jobs have made and writes nothing else, so that it may be made at any time, and
    again later.

    Parameters
    ----------
    entries : sequence of Entry or Unreadable
    path : Path
        An HTML file; one that is there is replaced.

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
    brains = [entry.brain for entry in entries if isinstance(entry, Entry)]
    refuse_overlap(path, [p for b in brains for p in (b.store, b.restored, b.report)])
    check_page(path)
    lines = [
        overview(entry.name, entry.brain, path)
        if isinstance(entry, Entry)
        else Overview(entry.label, entry.problem, "", {}, [], [])
        for entry in entries
    ]
    page = render("index.html", title="Brains", brains=lines, figures=common_figures(lines))
    write_page(path, page)
    return lines
