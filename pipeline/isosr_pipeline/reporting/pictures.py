"""Pictures that a page holds itself, as data, with scale bars."""

from __future__ import annotations

import base64
import math
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.reporting.planes import PlanePair, common_limits

_LONGEST_BAR = 0.3


class Shown(NamedTuple):
    """A plane before and after restoration, at one intensity scale.

    Parameters
    ----------
    name : str
        Of the plane.
    before, after : str
        Addresses that hold the pictures.
    overlay : str
        What is drawn over a second picture of the restored plane; empty: nothing.
    ratio : float
        Width over height.
    size : str
        In µm, for people.
    bar_um, bar_share : float
        Length of the scale bar, and its share of the width.
    low, high : float
        Intensities that are black and white.
    """

    name: str
    before: str
    after: str
    overlay: str
    ratio: float
    size: str
    bar_um: float
    bar_share: float
    low: float
    high: float


def show(plane: PlanePair, overlay: NDArray[np.uint8] | None = None) -> Shown:
    """Make pictures of a plane, at one intensity scale that fits both volumes.

    Parameters
    ----------
    plane : PlanePair
    overlay : ndarray, (rows, columns, 4) uint8, optional
        Red, green, blue and opacity, of the same plane.
    """
    low, high = common_limits(plane)
    height, width = plane.size_um
    bar = round_length(_LONGEST_BAR * width)
    return Shown(
        name=plane.name,
        before=png(grey(plane.before, low, high)),
        after=png(grey(plane.after, low, high)),
        overlay="" if overlay is None else png(overlay),
        ratio=width / height,
        size=f"{width:.4g} × {height:.4g} µm",
        bar_um=bar,
        bar_share=bar / width,
        low=low,
        high=high,
    )


def grey(plane: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return intensities as grey values, `low` black and `high` white; not finite is black."""
    values = np.nan_to_num(plane.astype(np.float64), posinf=high, neginf=low, nan=low)
    return np.asarray(np.clip((values - low) * (255 / (high - low)), 0, 255).round(), np.uint8)


def png(image: NDArray[np.uint8]) -> str:
    """Return the address of a PNG picture that it holds itself."""
    content = bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def round_length(length: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a length."""
    power: float = 10.0 ** math.floor(math.log10(length))
    # By rounding, a power of ten may be a little above itself.
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
