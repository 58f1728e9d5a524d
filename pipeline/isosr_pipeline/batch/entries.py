"""The brains of a batch: brain files, or a template and a table with a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from isosr_pipeline.batch.tables import read_table
from isosr_pipeline.brain import Brain, read_brain
from isosr_pipeline.clusters import tag_of
from isosr_pipeline.errors import InputError
from isosr_pipeline.yaml_files import variables_in

_WHAT = "a template, like examples/batch.yaml"


@dataclass(frozen=True)
class Entry:
    """One brain of a batch.

    Parameters
    ----------
    label : str
        Where it is described: a file, or a line of a table.
    brain : Brain
    """

    label: str
    brain: Brain

    @property
    def name(self) -> str:
        """The brain's name: that of its folder of results."""
        return self.brain.output.name

    @property
    def tag(self) -> str:
        """What the comments of all of its jobs begin with; by its folder of results alone."""
        return tag_of(self.brain.output)


@dataclass(frozen=True)
class Unreadable:
    """A brain of a batch that is not described in a way that can be read.

    Parameters
    ----------
    label : str
        Where it is described: a file, or a line of a table.
    problem : str
        Why it can't be read.
    """

    label: str
    problem: str


def read_entries(files: Sequence[Path], template: Path | None, table: Path | None) -> list[Entry]:
    """Read all brains of a batch.

    Parameters
    ----------
    files : sequence of Path
        Brain files.
    template, table : Path or None
        In place of files: a brain file with variables, and the CSV file with their values.

    Raises
    ------
    InputError
        Naming every brain that can't be read, or that has the output of another one.
    """
    found = read_each(files, template, table)
    refuse([one.problem for one in found if isinstance(one, Unreadable)])
    return [one for one in found if isinstance(one, Entry)]


def read_each(
    files: Sequence[Path], template: Path | None, table: Path | None
) -> list[Entry | Unreadable]:
    """Read all brains of a batch; one that can't be read does not hide the others.

    Parameters
    ----------
    files : sequence of Path
        Brain files.
    template, table : Path or None
        In place of files: a brain file with variables, and the CSV file with their values.

    Raises
    ------
    InputError
        When the template or the table can't be read.
    """
    found: list[Entry | Unreadable] = []
    seen: dict[str, str] = {}
    for label, path, variables in _sources(files, template, table):
        try:
            entry = Entry(label, read_brain(path, variables))
        except InputError as error:
            problem = str(error) if label == str(path) else f"{label}: {error}"
            found.append(Unreadable(label, problem))
            continue
        if entry.tag in seen:
            problem = (
                f"{label}: output is {entry.brain.output}, which is that of {seen[entry.tag]} too; "
                "give each brain once, and an output of its own"
            )
            found.append(Unreadable(label, problem))
            continue
        seen[entry.tag] = label
        found.append(entry)
    return found


def refuse(problems: Sequence[str]) -> None:
    """Raise one error with all problems, if there are any.

    Raises
    ------
    InputError
    """
    if problems:
        raise InputError("\n".join(problems))


def _sources(
    files: Sequence[Path], template: Path | None, table: Path | None
) -> Iterator[tuple[str, Path, dict[str, str]]]:
    if files and (template or table):
        raise InputError("give brain files, or --template with --table, not both")
    if files:
        yield from ((str(path), path, {}) for path in files)
        return
    if template is None or table is None:
        raise InputError("give brain files, or both --template and --table")
    for row in read_table(table, variables_in(template, _WHAT), template):
        yield f"{table}, line {row.line}", template, row.values
