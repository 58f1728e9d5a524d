"""Charts of a page: curves and histograms on common axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isosr_pipeline.drawing import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 360, 240
"""Of a chart in pixels: three of a kind stand side by side."""

_DASHES: dict[str, Any] = {"line": "-", "broken": (0, (4, 2))}


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Parameters
    ----------
    label : str
        For the legend; empty: none.
    x, y : sequence of float
        Of the same length; of steps, `x` are the edges between which each `y` holds, one more. What
        is not finite, or has no logarithm on such an axis, is left out.
    colour : str
    style : {"line", "broken", "points", "steps"}
        Steps are filled.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    style: Literal["line", "broken", "points", "steps"] = "line"


@dataclass(frozen=True)
class Chart:
    """Curves on common axes.

    Parameters
    ----------
    title, x_label, y_label : str
        Labels with their units.
    curves : sequence of Curve
    log_x, log_y : bool
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False

    def svg(self, name: str) -> str:
        """Draw the chart; without a point it says that there is nothing.

        Parameters
        ----------
        name : str
            What the chart shows, for those who don't see it; no other chart of a page has it.

        Returns
        -------
        str
            An SVG element.
        """
        curves = [curve for curve in map(self._shown, self.curves) if len(curve.y)]
        return draw(
            (lambda axes: self._plot(axes, curves)) if curves else None,
            self.title,
            name=name,
            size=(_WIDTH, _HEIGHT),
        )

    def _shown(self, curve: Curve) -> Curve:
        """Leave out the points that have no place."""
        if curve.style == "steps":
            return curve
        x, y = np.asarray(curve.x, np.float64), np.asarray(curve.y, np.float64)
        is_shown = np.isfinite(x) & np.isfinite(y)
        for values, is_log in ((x, self.log_x), (y, self.log_y)):
            is_shown &= (values > 0) | (not is_log)
        return replace(curve, x=x[is_shown].tolist(), y=y[is_shown].tolist())

    def _plot(self, axes: Axes, curves: Sequence[Curve]) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.set(xlabel=self.x_label, ylabel=self.y_label)
        if self.log_x:
            axes.set_xscale("log")
        if self.log_y:
            axes.set_yscale("log")
        if any(curve.style == "steps" for curve in curves):
            axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        for curve in curves:
            _add(axes, curve)


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
    curves = [
        Curve(label, edges.tolist(), np.histogram(values, edges)[0].tolist(), colour, "steps")
        for label, values, colour in finite
    ]
    return Chart(title, x_label, "count", curves)


def _add(axes: Axes, curve: Curve) -> None:
    label, colour = curve.label, curve.colour
    if curve.style == "steps":
        axes.stairs(curve.y, curve.x, fill=True, color=colour, alpha=0.15)
        axes.stairs(curve.y, curve.x, color=colour, label=label)
    elif curve.style == "points" or len(curve.y) == 1:
        axes.plot(curve.x, curve.y, "o", color=colour, label=label, markeredgewidth=0)
    else:
        dashes = _DASHES[curve.style]
        axes.plot(curve.x, curve.y, color=colour, label=label, linestyle=dashes)
