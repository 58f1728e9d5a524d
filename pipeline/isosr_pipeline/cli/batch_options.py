"""Options of the commands for many brains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def table_options(function: Function) -> Function:
    """Add ``--template`` and ``--table``."""
    function = click.option(
        "--table",
        type=click.Path(path_type=Path),
        metavar="BRAINS.csv",
        help="A line for each brain; its columns are the variables of the template.",
    )(function)
    return click.option(
        "--template",
        type=click.Path(path_type=Path),
        metavar="BRAIN.yaml",
        help="A brain file with variables, such as ${brain}, in place of brain files.",
    )(function)
