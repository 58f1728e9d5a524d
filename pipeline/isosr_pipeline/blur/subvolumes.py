"""Sub-volumes of a store, drawn where it shows something, as they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.foreground import choose_level, foreground_shares
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.sampling import Cells, Sampler, snapped
from isosr_pipeline.store.volume import Volume

_ATTEMPTS = 40


@dataclass(frozen=True)
class Subvolumes:
    """Where sub-volumes of a volume lie.

    Parameters
    ----------
    shape : Zyx
        Of each, in measured voxels.
    step : float
        Distance of two planes, in lateral voxels.
    starts : tuple of Zyx
        First voxels, in measured voxels.
    foreground : bool
        False: they were drawn from everywhere, since it could not be told where something is.
    """

    shape: Zyx
    step: float
    starts: tuple[Zyx, ...]
    foreground: bool

    @property
    def boxes(self) -> Iterator[Box]:
        """In measured voxels."""
        for start in self.starts:
            yield Box(Zyx(0, 0, 0), self.shape).shifted(start)

    @property
    def depths(self) -> list[float]:
        """Where their centres lie along z, in lateral voxels."""
        return [(start.z + self.shape.z / 2) * self.step for start in self.starts]


def draw_subvolumes(volume: Volume, channel: int, edge: int, count: int, seed: int) -> Subvolumes:
    """Draw sub-volumes: nine in ten in proportion to their foreground, one from everywhere.

    They lie on a lattice with at least half an edge between neighbours: under Hann windows, these
    share next to nothing.

    Parameters
    ----------
    volume : Volume
    channel : int
    edge : int
        Lateral voxels along each axis; fewer where the volume has fewer.
    count : int
        At the most; fewer where the volume holds no more.
    seed : int

    Raises
    ------
    InputError
        When the volume has no isotropic grid.
    """
    view = IsotropicView(volume)
    step = 1 / view.planes_per_voxel
    _, depth, height, width = volume.shape
    shape = Zyx(min(depth, round(edge / step)), min(height, edge), min(width, edge))
    crop = Zyx(min(view.shape.z, max(1, round(shape.z * step))), shape.y, shape.x)
    cells = Cells.of(view.shape, crop)
    sampler = _sampler(view, volume, channel, cells, crop)
    rng = np.random.default_rng((seed, channel))
    starts: dict[Zyx, None] = {}  # In the order in which they were drawn.
    for _ in range(_ATTEMPTS * count):
        place = sampler.draw(rng).start
        measured = (place.z * view.planes_per_voxel, place.y, place.x)
        lattice = zip(measured, volume.shape[1:], shape, strict=True)
        starts[Zyx(*(snapped(at, length, own) for at, length, own in lattice))] = None
        if len(starts) == count:
            break
    return Subvolumes(shape, step, tuple(starts), sampler.sums is not None)


def _sampler(view: IsotropicView, volume: Volume, channel: int, cells: Cells, crop: Zyx) -> Sampler:
    level = choose_level(volume)
    windows = volume.attributes.windows if volume.attributes else []
    if level is None or not windows:
        return Sampler([cells], [1])
    window = windows[channel][0]
    limits = (window.low, window.high)
    found = foreground_shares(view, volume, channel, level, cells, crop, limits)
    return Sampler.weighted([cells], [[found]])
