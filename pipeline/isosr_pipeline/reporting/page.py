"""Pages: templates filled in, that load nothing from anywhere, written as a whole."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.paths import check_creatable, creating, replacing

_GENERATOR = b'<meta name="generator" content="isosr-pipeline">'
_HEAD = 4096

_TEMPLATES = Environment(
    loader=PackageLoader("isosr_pipeline.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **content: Any) -> str:
    """Fill in a template; what is filled in is escaped.

    Parameters
    ----------
    template : str
        Name of a file in ``templates``.
    **content
        What it names.

    Returns
    -------
    str
        An HTML document whose policy lets it load nothing, and run its own script alone.
    """
    script = _source("sorting.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _TEMPLATES.get_template(template).render(
        script=script,
        digest=digest,
        style=_source("style.css"),
        number=number,
        key=sorting_key,
        **content,
    )


def number(value: float | None) -> str:
    """Return a figure for people."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.4g}"


def sorting_key(value: float | None) -> str:
    """Return a figure as the script that sorts tables reads it; empty: not known."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def check_page(path: Path) -> None:
    """Refuse a path that no page can be written to; a page that is there may be replaced.

    Raises
    ------
    InputError
        When it is no HTML file, or can't be made.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} has the suffix {path.suffix!r}; a page is written as .html")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.absolute().parent.is_dir():
        raise MissingInputError(f"{path.parent} is no folder; make it first")
    check_creatable(path, replace=True)


def is_own_page(path: Path) -> bool:
    """Tell whether a file is a page of this program.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputPathError
        When it can't be read.
    """
    with creating(path), path.open("rb") as file:
        return _GENERATOR in file.read(_HEAD)


def write_page(path: Path, content: str) -> None:
    """Write a page as a whole, in place of one that is there.

    Whoever writes it at the same time writes to another file, so that one of them is there.

    Raises
    ------
    OutputPathError
        When it can't be written.
    """
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")


def _source(name: str) -> str:
    source, _path, _current = PackageLoader("isosr_pipeline.reporting").get_source(_TEMPLATES, name)
    return source
