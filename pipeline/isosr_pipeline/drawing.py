"""Charts as SVG: what pictures of figures have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

BEFORE, AFTER, THIRD = "#777777", "#c2410c", "#1d4ed8"
"""Colours of the input, of the restored volume, and of what else there is."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 26, 44
_TICKS = 5
_LEGEND_STEP = 20
_LEGEND_COLUMNS = 2
_LONGEST_LABEL = 5
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Parameters
    ----------
    label : str
        For the legend; empty: none.
    x, y : sequence of float
        Of the same length. What is not finite, or has no logarithm on such an axis, is left out.
    colour : str
    style : {"line", "broken", "points"}
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    style: Literal["line", "broken", "points"] = "line"


@dataclass(frozen=True)
class Chart:
    """Curves on common axes.

    Parameters
    ----------
    title, x_label, y_label : str
        Labels with their units.
    curves : sequence of Curve
    log_x, log_y : bool
    width, height : int
        In pixels, of the axes with their labels; the names of curves go below.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False
    width: int = 420
    height: int = 280

    def svg(self) -> str:
        """Draw the chart as an SVG document; without a point it says that there is nothing."""
        curves = [(curve, self._points(curve)) for curve in self.curves]
        kept = [(curve, points) for curve, points in curves if points]
        middle = self.width / 2
        parts = [text(middle, 16, self.title)]
        if not kept:
            parts.append(text(middle, self.height / 2, "nothing can be told"))
            return document(self.width, self.height, parts)
        names = [curve for curve, _ in kept if curve.label]
        across = _Axis(
            [x for _, points in kept for x, _ in points],
            self.log_x,
            (_LEFT, self.width - _RIGHT),
        )
        upward = _Axis(
            [y for _, points in kept for _, y in points],
            self.log_y,
            (self.height - _BOTTOM, _TOP),
        )
        parts += self._frame(across, upward)
        for curve, points in kept:
            parts += _drawn(curve, [(across.at(x), upward.at(y)) for x, y in points])
        for index, curve in enumerate(names):
            parts += self._legend(curve, index)
        rows = -(-len(names) // _LEGEND_COLUMNS)
        return document(self.width, self.height + _LEGEND_STEP * rows, parts)

    def _points(self, curve: Curve) -> list[tuple[float, float]]:
        return [
            (x, y)
            for x, y in zip(curve.x, curve.y, strict=True)
            if math.isfinite(x)
            and math.isfinite(y)
            and (x > 0 or not self.log_x)
            and (y > 0 or not self.log_y)
        ]

    def _frame(self, across: _Axis, upward: _Axis) -> list[str]:
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        parts = []
        for value, label in across.ticks():
            x = across.at(value)
            parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#e5e5e5"/>')
            parts.append(text(x, bottom + 16, label))
        for value, label in upward.ticks():
            y = upward.at(value)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#e5e5e5"/>')
            parts.append(text(_LEFT - 6, y + 4, label, "end"))
        frame = f'x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}"'
        middle = (_TOP + bottom) / 2
        return [
            *parts,
            f'<rect {frame} fill="none" stroke="#555"/>',
            text((_LEFT + right) / 2, self.height - 8, self.x_label),
            f'<g transform="rotate(-90 12 {middle})">{text(12, middle + 4, self.y_label)}</g>',
        ]

    def _legend(self, curve: Curve, index: int) -> list[str]:
        """Name a curve below the chart, where no other curve runs."""
        row, column = divmod(index, _LEGEND_COLUMNS)
        left = 16 + column * (self.width - 16) / _LEGEND_COLUMNS
        y = self.height + _LEGEND_STEP * (row + 0.2)
        line = _drawn(curve, [(left, y), (left + 22, y)])
        return [*line, text(left + 28, y + 4, curve.label, "start")]


class _Axis:
    """Places values between two ends of a picture, evenly or by their logarithms."""

    def __init__(self, values: Sequence[float], is_log: bool, ends: tuple[float, float]) -> None:
        self._function: Callable[[float], float] = math.log10 if is_log else float
        self._is_log, self._ends = is_log, ends
        low, high = self._function(min(values)), self._function(max(values))
        margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
        self._low, self._high = low - margin, high + margin

    def at(self, value: float) -> float:
        share = (self._function(value) - self._low) / (self._high - self._low)
        return self._ends[0] + (self._ends[1] - self._ends[0]) * share

    def ticks(self) -> list[tuple[float, str]]:
        if self._is_log and self._high - self._low >= 1.5:
            first, last = math.ceil(self._low), math.floor(self._high)
            decades = max(1, -(-(last - first) // _TICKS))
            return [(10.0**n, _label(10.0**n)) for n in range(first, last + 1, decades)]
        low, high = (10**self._low, 10**self._high) if self._is_log else (self._low, self._high)
        step = round_length((high - low) / _TICKS)
        numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
        return [(n * step, _label(n * step)) for n in numbers]


def histogram(
    title: str,
    x_label: str,
    groups: Sequence[tuple[str, Sequence[float], str]],
    bins: int = 24,
) -> Chart:
    """Return a chart of histograms with common bins.

    Parameters
    ----------
    title, x_label : str
    groups : sequence of (str, sequence of float, str)
        For each: label, values, colour. What is not finite is left out.
    bins : int
    """
    finite = [(n, [v for v in values if math.isfinite(v)], c) for n, values, c in groups]
    everything = [value for _, values, _ in finite for value in values]
    if not everything:
        return Chart(title, x_label, "", [])
    edges = np.histogram_bin_edges(everything, bins)
    curves = []
    for label, values, colour in finite:
        counts, _ = np.histogram(values, edges)
        x = np.repeat(edges, 2)
        y = np.concatenate([[0], np.repeat(counts, 2), [0]])
        curves.append(Curve(label, x.tolist(), y.tolist(), colour))
    return Chart(title, x_label, "count", curves)


def round_length(length: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a length."""
    power: float = 10.0 ** math.floor(math.log10(length))
    # By rounding, a power of ten may be a little above itself.
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def document(width: int, height: int, parts: Sequence[str]) -> str:
    """Return an SVG document of some parts on white, one a line."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def text(
    x: float, y: float, content: str, anchor: Literal["start", "middle", "end"] = "middle"
) -> str:
    """Return an element with text, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _label(value: float) -> str:
    """Write a tick's number: in full where it is short, else with a power of ten."""
    plain = f"{value:.10g}"
    if len(plain.strip("-").replace(".", "")) <= _LONGEST_LABEL and "e" not in plain:
        return plain
    mantissa, _, power = f"{value:.3e}".partition("e")
    raised = f"10{str(int(power)).translate(_RAISED)}"
    mantissa = mantissa.rstrip("0").rstrip(".")
    return raised if mantissa == "1" else f"{mantissa}·{raised}"


def _drawn(curve: Curve, places: Sequence[tuple[float, float]]) -> list[str]:
    if curve.style == "points":
        return [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{curve.colour}"/>' for x, y in places
        ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="6 4"' if curve.style == "broken" else ""
    line = f'fill="none" stroke="{curve.colour}" stroke-width="2"{dash}'
    return [f'<polyline points="{points}" {line}/>']
