"""The trust map beside a restored volume, drawn over its slices.

It is read by its OME-Zarr metadata alone: cells with scores, above 0 where the restored volume has
more light than was measured, below where it has less, in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.reporting.pair import Pair
from isosr_pipeline.reporting.planes import ACROSS, PlanePair
from isosr_pipeline.restoring.parts import complete_volume
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside, mismatch

THRESHOLD = 5.0
"""Standard deviations from which cells are drawn, where the map does not say its own."""

_MORE, _LESS = (230, 40, 20), (30, 90, 255)
_OPACITY = 130


@dataclass(frozen=True)
class TrustMap:
    """A trust map.

    Parameters
    ----------
    volume : Volume
    channel : int
        Of the map, that of the report.
    threshold : float
        Scores from which cells are drawn.
    figures : dict
        What the map comes to, as its history tells; empty: it does not.
    """

    volume: Volume
    channel: int
    threshold: float
    figures: dict[str, Any]

    @property
    def channels(self) -> list[dict[str, Any]]:
        """What each channel comes to, as far as the history tells."""
        return self._listed("channels")

    def worst(self, channel: int | None = None) -> list[dict[str, Any]]:
        """Return the worst places of a channel of the restored volume, or of all of them."""
        found = self._listed("worst")
        return [one for one in found if channel is None or one.get("channel") == channel]

    def _listed(self, name: str) -> list[dict[str, Any]]:
        found = self.figures.get(name)
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def over(self, plane: PlanePair, pair: Pair) -> NDArray[np.uint8]:
        """Draw the cells that are flagged in a slice.

        Parameters
        ----------
        plane : PlanePair
            A slice.
        pair : Pair
            What it is a slice of.

        Returns
        -------
        ndarray, (rows, columns, 4) uint8
            Red: more light than was measured; blue: less; clear elsewhere.
        """
        indices = [self._cells(plane.box, axis, pair) for axis in range(3)]
        lengths = self.volume.shape[1:]
        spans = [_span(found, n) for found, n in zip(indices, lengths, strict=True)]
        box = Box(Zyx(*(a for a, _ in spans)), Zyx(*(b for _, b in spans)))
        scores = self.volume.read(self.channel, box).astype(np.float32)
        inside = np.ones([len(found) for found in indices], bool)
        for axis, (found, span) in enumerate(zip(indices, spans, strict=True)):
            scores = np.take(scores, np.clip(found, span[0], span[1] - 1) - span[0], axis=axis)
            shape = [1, 1, 1]
            shape[axis] = -1
            inside &= ((found >= span[0]) & (found < span[1])).reshape(shape)
        across = ACROSS[plane.name]
        scores = np.where(inside, np.nan_to_num(scores), 0).squeeze(across)
        picture = np.zeros((*scores.shape, 4), np.uint8)
        picture[scores >= self.threshold] = (*_MORE, _OPACITY)
        picture[scores <= -self.threshold] = (*_LESS, _OPACITY)
        return picture

    def _cells(self, box: Box, axis: int, pair: Pair) -> NDArray[np.intp]:
        """Return the cells in which voxels of a box lie along an axis; some may not be there."""
        voxels = np.arange(box.start[axis], box.stop[axis])
        um = pair.made.origin[axis] + voxels * pair.made.voxel_size[axis]
        # Origins are the middles of the first voxels.
        cells = (um - self.volume.origin[axis]) / self.volume.voxel_size[axis] + 0.5
        return np.asarray(np.floor(cells + 1e-6), np.intp)


def open_trust(pair: Pair) -> TrustMap | None:
    """Open the map beside a restored volume; None where there is none, or not of this channel.

    Parameters
    ----------
    pair : Pair

    Raises
    ------
    InputError
        When it is there and can't be read, is not complete, or is of another restoration.
    """
    path = map_beside(pair.made.path)
    if not path.exists():
        return None
    volume = complete_volume(path)
    if problem := mismatch(volume, pair.made, pair.measured):
        raise InputError(problem)
    name = pair.made.channels[pair.channel]
    if name not in volume.channels:
        return None
    own = volume.attributes
    figures = own.history[-1].figures if own and own.history else {}
    threshold = figures.get("threshold", THRESHOLD)
    known = isinstance(threshold, int | float) and threshold > 0
    return TrustMap(
        volume, volume.channels.index(name), float(threshold) if known else THRESHOLD, figures
    )


def _span(indices: NDArray[np.intp], length: int) -> tuple[int, int]:
    """Return the cells of a map that are needed; at least one."""
    start = min(max(int(indices.min()), 0), length - 1)
    return start, max(min(int(indices.max()) + 1, length), start + 1)
