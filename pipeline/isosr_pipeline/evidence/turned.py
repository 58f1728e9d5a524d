"""A reference of another view: its axes brought in the order and direction of the volume's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.measuring import Image


@dataclass(frozen=True)
class TurnedImage:
    """An image seen with its axes permuted and reversed, as after a turn by quarter turns.

    Parameters
    ----------
    image : Image
    order : str
        As `settings.AxisOrder`: which axis of the image is z, y, x here; reversed after a minus.
    """

    image: Image
    order: str

    @property
    def path(self) -> Path:
        """File or folder."""
        return self.image.path

    @property
    def _axes(self) -> list[tuple[int, bool]]:
        """For z, y, x here: the number of the image's axis, and whether it is reversed."""
        return [
            (AXES.index(part.removeprefix("-")), part.startswith("-"))
            for part in self.order.split(",")
        ]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        channels, *lengths = self.image.shape
        z, y, x = (lengths[axis] for axis, _ in self._axes)
        return channels, z, y, x

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box; returns (z, y, x)."""
        spans = [(0, 0)] * 3
        for (axis, reverse), start, stop, length in zip(
            self._axes, box.start, box.stop, self.shape[1:], strict=True
        ):
            spans[axis] = (length - stop, length - start) if reverse else (start, stop)
        starts, stops = zip(*spans, strict=True)
        values = self.image.read(channel, Box(Zyx(*starts), Zyx(*stops)))
        turned = values.transpose([axis for axis, _ in self._axes])
        reversed_here = tuple(own for own, (_, reverse) in enumerate(self._axes) if reverse)
        flipped: NDArray[Any] = np.flip(turned, reversed_here)
        return flipped
