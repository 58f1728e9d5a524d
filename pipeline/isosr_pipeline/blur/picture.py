"""A picture of what was measured of a blur and fitted to it, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.blur.axial import Square
from isosr_pipeline.blur.fit import SCALE
from isosr_pipeline.blur.form import Point
from isosr_pipeline.drawing import document, text

_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 50, 60
_TICKS = 5


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

    A Gaussian blur is a straight line; its interval of 95 % is grey. Points are what was measured,
    with standard errors; a broken line is the transfer function with no form given.

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
    if blur is None or len(blur.points) < 2:
        parts = [
            text(_WIDTH / 2, _HEIGHT / 2, "nothing can be told"),
            text(_WIDTH / 2, 20, title),
        ]
    else:
        parts = _Chart(blur).parts(title)
    return document(_WIDTH, _HEIGHT, parts)


class _Chart:
    """Places data on the picture."""

    def __init__(self, blur: Drawn) -> None:
        self._blur = blur
        values = [p.logarithm for p in blur.points]
        self._most = blur.points[-1].frequency ** 2
        # Where no point reaches, a line would leave the picture.
        self._low = min(0.0, *values) * 1.1 - 0.2
        self._high = max(0.0, *values) * 1.1 + 0.2

    def parts(self, title: str) -> list[str]:
        blur = self._blur
        sigma = blur.lateral
        low, high = sigma.interval
        caption = f"sigma {sigma.sigma:.2f} voxels (95 %: {low:.2f} to {high:.2f})"
        return [
            *self._frame(),
            text(_WIDTH / 2, 20, title),
            text(_WIDTH / 2, 38, caption),
            self._band(),
            self._line([(0, 0), (self._most, self._gaussian(sigma.value))], "#c33"),
            *self._free(),
            *self._points(),
        ]

    def _gaussian(self, square: float) -> float:
        return -SCALE * square * self._most

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = (_WIDTH - _LEFT - _RIGHT) * x / self._most
        share = (y - self._low) / (self._high - self._low)
        # Lines may leave at the bottom, but not the numbers that a viewer can hold.
        share = min(max(share, -5.0), 5.0)
        return _LEFT + across, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def _line(self, data: list[tuple[float, float]], colour: str, dash: str = "") -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self._at(*d) for d in data))
        return (
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}" clip-path="url(#frame)"/>'
        )

    def _band(self) -> str:
        square = self._blur.lateral
        ends = [square.value + side * 1.96 * square.error for side in (-1, 1)]
        data = [(0.0, 0.0), *((self._most, self._gaussian(end)) for end in ends)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self._at(*d) for d in data))
        return f'<polygon points="{points}" fill="#ccc" clip-path="url(#frame)"/>'

    def _free(self) -> list[str]:
        curve = self._blur.curve
        data = [(f**2, 2 * math.log(a)) for f, a in curve if f**2 <= self._most]
        return [self._line(data, "#36c", "6 4")] if curve else []

    def _points(self) -> list[str]:
        shapes = []
        for point in self._blur.points:
            x, y = self._at(point.frequency**2, point.logarithm)
            _, low = self._at(0, point.logarithm - point.error)
            _, high = self._at(0, point.logarithm + point.error)
            shapes.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="black"/>')
            shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        return shapes

    def _frame(self) -> list[str]:
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        box = f'x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}"'
        shapes = [
            f'<clipPath id="frame"><rect {box}/></clipPath>',
            f'<rect {box} fill="none" stroke="black"/>',
            text(_WIDTH / 2, _HEIGHT - 12, "fz², (cycles per lateral voxel)²"),
            f'<g transform="rotate(-90 18 {_HEIGHT / 2})">'
            + text(18, _HEIGHT / 2, "ln (power along z / in the plane)")
            + "</g>",
        ]
        for value in np.linspace(0, self._most, _TICKS):
            x, _ = self._at(float(value), 0)
            shapes.append(text(x, _HEIGHT - _BOTTOM + 18, f"{value:.3g}"))
        for value in np.linspace(self._low, self._high, _TICKS):
            _, y = self._at(0, float(value))
            shapes.append(text(_LEFT - 24, y + 4, f"{value:.2f}"))
        return shapes
