"""A picture of what was measured of a blur and fitted to it, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isosr_pipeline.blur.axial import Square
from isosr_pipeline.blur.fit import SCALE
from isosr_pipeline.blur.form import Point
from isosr_pipeline.drawing import AFTER, INK, THIRD, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (640, 400)
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Drawn:
    """What a picture shows; all lengths in lateral voxels.

    Parameters
    ----------
    lateral : Square
        Against the mean of y and x.
    points : tuple of Point
        What was measured along z.
    curve : tuple of tuple of 2 floats
        Frequencies and amplitudes of the transfer function with no form given; empty: not known.
    """

    lateral: Square
    points: tuple[Point, ...]
    curve: tuple[tuple[float, float], ...] = ()


def draw_blur(blur: Drawn | None, title: str) -> str:
    """Draw the logarithm of the power along z, over that in the plane, against fz².

    A Gaussian blur is a straight line; its interval of 95 % is shaded. Points are what was
    measured, with standard errors; a broken line is the transfer function with no form given.

    Parameters
    ----------
    blur : Drawn or None
        None: the picture says that nothing can be told.
    title : str

    Returns
    -------
    str
        An SVG document.
    """
    name = f"axial blur: {title}"
    if blur is None or len(blur.points) < 2:
        return draw(None, title, name=name, size=_SIZE)
    return draw(lambda axes: _plot(axes, blur), title, name=name, size=_SIZE)


def _plot(axes: Axes, blur: Drawn) -> None:
    axes.set(xlabel="fz², (cycles per lateral voxel)²", ylabel="ln (power along z / in the plane)")
    squares = [point.frequency**2 for point in blur.points]
    logarithms = [point.logarithm for point in blur.points]
    axes.errorbar(
        squares,
        logarithms,
        [point.error for point in blur.points],
        fmt="o",
        color=INK,
        elinewidth=1,
        label="measured, with standard errors",
    )
    # Where no point reaches, a line would leave the picture.
    axes.set_xlim(0, squares[-1] * 1.02)
    axes.set_ylim(min(0, *logarithms) * 1.1 - 0.2, max(0, *logarithms) * 1.1 + 0.2)
    _plot_gaussian(axes, blur.lateral, squares[-1])
    curve = [(f**2, 2 * math.log(a)) for f, a in blur.curve if f**2 <= squares[-1]]
    if curve:
        x, y = zip(*curve, strict=True)
        axes.plot(x, y, "--", color=THIRD, label="transfer function with no form given")


def _plot_gaussian(axes: Axes, square: Square, most: float) -> None:
    lowest, highest = (
        [0, -SCALE * (square.value + side * _NORMAL_95 * square.error) * most] for side in (-1, 1)
    )
    low, high = square.interval
    axes.fill_between(
        [0, most],
        lowest,
        highest,
        color=AFTER,
        alpha=0.15,
        linewidth=0,
        label=f"95 %: {low:.2f} to {high:.2f} voxels",
    )
    line = f"Gaussian, sigma {square.sigma:.2f} voxels"
    axes.plot([0, most], [0, -SCALE * square.value * most], color=AFTER, label=line)
