"""Tables of brains: CSV files whose columns fill the variables of one template."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isosr_pipeline.errors import InputError, MissingInputError

_NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Parameters
    ----------
    line : int
        Number of the line, from 1.
    values : dict of str to str
        By the names of the columns.
    """

    line: int
    values: dict[str, str]


def read_table(path: Path, variables: set[str], template: Path) -> list[Row]:
    """Read a table of brains.

    Parameters
    ----------
    path : Path
        CSV with a header, UTF-8 with or without a byte order mark.
    variables : set of str
        Those of the template.
    template : Path
        For messages.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        Naming the line and the column that can't be used.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist; give a table, like examples/brains.csv")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(_lines(csv.reader(file, strict=True)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if not lines:
        raise InputError(f"{path} is empty; give a header with the names of the columns first")
    (first, header), *rows = lines
    _check_header(path, first, header, variables, template)
    if not rows:
        raise InputError(f"{path} has a header and no brains; give a line for each")
    return [Row(line, _values(path, line, header, cells)) for line, cells in rows]


def _lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not empty, each with its number."""
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            # A cell may have line breaks; the reader counts where it is.
            yield reader.line_num, stripped  # type: ignore[attr-defined]


def _check_header(
    path: Path, line: int, header: list[str], variables: set[str], template: Path
) -> None:
    for number, name in enumerate(header, 1):
        where = f"{path}, line {line}, column {number}"
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{where}: {name!r} is no name of a column; give letters, digits and _, as in "
                "${brain}"
            )
        if name in header[: number - 1]:
            raise InputError(f"{where}: {name!r} names a column before it too; rename one")
        if name not in variables:
            used = ", ".join(f"${{{used}}}" for used in sorted(variables)) or "none"
            raise InputError(
                f"{where}: {template} does not use ${{{name}}}, and every column must be used "
                f"(its variables: {used}); correct the name, or remove the column"
            )


def _values(path: Path, line: int, header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) > len(header):
        raise InputError(
            f"{path}, line {line}: {len(cells)} values, and the header has {len(header)} columns; "
            "put values with commas into quotes"
        )
    for number, name in enumerate(header):
        if number >= len(cells) or not cells[number]:
            raise InputError(f"{path}, line {line}, column {name}: no value; give one")
    return dict(zip(header, cells, strict=True))
