"""Pictures of figures as SVG, drawn by Matplotlib: one style for all of them."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, THIRD = "#777777", "#c2410c", "#1d4ed8"
"""Colours of the input, of the restored volume, and of what else there is."""

INK, FAINT = "#1c1917", "#78716c"
"""Colours of what was measured on its own, and of what is there for comparison."""

_LEFT, _RIGHT, _ABOVE, _BELOW = 60, 8, 22, 40
"""Of a picture in pixels: room for numbers of up to six characters, and for labels."""

_LEGEND_ROW = 17
_UNITS_PER_INCH = 72

_FONTS = "system-ui, sans-serif"
"""Of the page; Matplotlib places them as if they were its own."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "semibold",
    "axes.titley": 1.0,
    "axes.edgecolor": "#a8a29e",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.limits": (-3, 5),
    "grid.color": "#e7e5e4",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "patch.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    **{f"{axis}tick.labelcolor": INK for axis in "xy"},
    **{f"{axis}tick.color": "#a8a29e" for axis in "xy"},
    **{f"{axis}tick.minor.size": 0 for axis in "xy"},
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def draw(
    plot: Callable[[Axes], None] | None, title: str, *, name: str, size: tuple[int, int]
) -> str:
    """Draw a picture in the style of all of them, without a display or any settings of the user's.

    Parameters
    ----------
    plot : callable or None
        Draws on the axes that it is given; what has a label is named below them, where no curve
        runs. None: the picture says that there is nothing.
    title : str
    name : str
        What the picture shows, for those who don't see it; no other one of a page has it, since
        what the picture refers to in itself is named by it.
    size : tuple of 2 ints
        Width and height in pixels, of the axes with their labels; the names of curves go below.

    Returns
    -------
    str
        An SVG element, for a page or for a file of its own. The same each time.
    """
    name, title = _printable(name), _printable(title)
    with _style(name):
        from matplotlib.figure import Figure

        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title(title, parse_math=False)
        if plot is None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "nothing can be told", ha="center", transform=axes.transAxes)
        else:
            plot(axes)
        _place(figure, axes, size)
        drawn = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    return _element(drawn.getvalue(), name)


def _place(figure: Figure, axes: Axes, size: tuple[int, int]) -> None:
    """Put the axes at the same place in each picture, and the names of curves below them.

    So they stand in line in a page, and are drawn in half the time that it takes to fit them in.
    """
    width, height = size
    below: float = _BELOW
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 3 if len(labels) == 3 else 2
        more = _LEGEND_ROW * math.ceil(len(labels) / columns)
        below, height = below + more, height + more
        middle = (_LEFT + width - _RIGHT) / 2 / width
        figure.legend(
            handles, labels, loc="lower center", bbox_to_anchor=(middle, 0), ncols=columns
        )
    figure.set_size_inches(width / _UNITS_PER_INCH, height / _UNITS_PER_INCH)
    figure.subplots_adjust(
        left=_LEFT / width,
        right=1 - _RIGHT / width,
        bottom=below / height,
        top=1 - _ABOVE / height,
    )


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Let Matplotlib draw in one style, whatever settings the user has, and in silence.

    Without a home that it can write to, as on a node of a cluster, it keeps its list of fonts in a
    temporary folder until the program ends, and would say so. A character that its font lacks is
    shown by another font of the reader's.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # Only those who draw wait for it.
        with _without_settings():
            import matplotlib

        settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
        # Those of windows, which there are none of.
        for windows in ("backend", "backend_fallback"):
            settings.pop(windows, None)
        settings |= {**_STYLE, "svg.hashsalt": salt}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            with matplotlib.rc_context(settings):
                yield
    finally:
        logger.setLevel(level)


@contextmanager
def _without_settings() -> Iterator[None]:
    """Hide a user's settings from Matplotlib while it is imported for the first time.

    It reads them then, and a backend that it doesn't know, as notebooks name one, or a byte of the
    file that is no UTF-8, would end the program.
    """
    if "matplotlib" in sys.modules:
        yield
        return
    backend, file = "MPLBACKEND", "MATPLOTLIBRC"
    theirs = {name: os.environ.get(name) for name in (backend, file)}
    os.environ.pop(backend, None)
    os.environ[file] = os.devnull
    try:
        yield
    finally:
        for name, value in theirs.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _printable(text: str) -> str:
    """Replace what XML can't hold, as names of files may."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _element(drawn: bytes, name: str) -> str:
    """Make a document of Matplotlib's an element that may stand beside others in a page."""
    root = ElementTree.fromstring(drawn)  # noqa: S314 - drawn just now
    # Its style sheet would hold for the whole page.
    for definitions in root.iter(f"{_SVG}defs"):
        for style in definitions.findall(f"{_SVG}style"):
            definitions.remove(style)
    spaces = {"xmlns": _SVG[1:-1], "xmlns:xlink": _XLINK[1:-1]}
    said = {"role": "img", "aria-label": name, "stroke-linejoin": "round"}
    root.attrib = {**spaces, **root.attrib, **said}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            key.replace(_XLINK, "xlink:"): re.sub(r"'DejaVu Sans'(, sans-serif)?", _FONTS, value)
            for key, value in element.attrib.items()
            # Groups are numbered alike in each picture, and nothing refers to them.
            if (element.tag, key) != ("g", "id")
        }
        element.text, element.tail = ((t or "").strip() for t in (element.text, element.tail))
    return ElementTree.tostring(root, encoding="unicode")
