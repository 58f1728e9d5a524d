"""Where a volume shows something, before it was restored: what it became has no say in it."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from isosr_pipeline.foreground import choose_level, find_foreground, read_level
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.isotropic import Part
from isosr_pipeline.sampling import Cells, Grid, Sampler, shares, snapped
from isosr_pipeline.store.volume import Volume

_ATTEMPTS = 40


class Places:
    """Draws places of a part of a volume in proportion to the foreground there.

    Parameters
    ----------
    part : Part
        What is compared: of the measured volume, on the isotropic grid.
    volume : Volume
        What it is a part of, with its pyramid.
    channel : int
        Of the part.
    """

    def __init__(self, part: Part, volume: Volume, channel: int) -> None:
        self.shape = part.shape
        self._part = part
        self._volume = volume
        self._channel = part.channels[channel]

    @cached_property
    def _foreground(self) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.bool_]], int] | None:
        """What stands out in a coarse level, and which it is; None: that can't be told."""
        level = choose_level(self._volume)
        own = self._volume.attributes
        if level is None or own is None or not own.windows:
            return None
        window = own.windows[self._channel][0]
        voxels = read_level(self._volume, self._channel, level)
        return find_foreground(voxels, (window.low, window.high)), level

    def draw(
        self, shape: Zyx, count: int, seed: int, *, apart: bool = False
    ) -> tuple[Zyx, ...] | None:
        """Draw different places in proportion to the foreground that they hold.

        Parameters
        ----------
        shape : Zyx
            Of what is taken from each, in voxels.
        count : int
            At the most; fewer where there are no more.
        seed : int
        apart : bool
            Whether they lie on a lattice with at least half a shape between neighbours.

        Returns
        -------
        tuple of Zyx or None
            First voxels; None: nothing stands out, or it can't be told what does.
        """
        sampler = self._sampler(shape)
        if sampler is None:
            return None
        rng = np.random.default_rng((seed, *shape))
        starts: dict[Zyx, None] = {}  # In the order in which they were drawn.
        for _ in range(_ATTEMPTS * count):
            start = sampler.draw(rng, uniform=0.0).start
            if apart:
                lattice = zip(start, self.shape, shape, strict=True)
                start = Zyx(*(snapped(at, length, own) for at, length, own in lattice))
            starts[start] = None
            if len(starts) == count:
                break
        return tuple(starts)

    def draw_anywhere(self, shape: Zyx, count: int, seed: int) -> tuple[Zyx, ...]:
        """Draw different places, all alike; see `draw`."""
        rng = np.random.default_rng((seed, *shape))
        cells = Cells.of(self.shape, shape)
        return tuple(dict.fromkeys(cells.anywhere(rng) for _ in range(count)))

    def _sampler(self, shape: Zyx) -> Sampler | None:
        if self._foreground is None:
            return None
        found, level = self._foreground
        cells = Cells.of(self.shape, shape)
        ratios = (self._part.view.planes_per_voxel, 1.0, 1.0)
        lengths = zip(ratios, self._volume.step(level), self._part.box.start, strict=True)
        grids = [Grid(ratio, step, first) for ratio, step, first in lengths]
        sampler = Sampler.weighted([cells], [[shares(found, cells, shape, grids)]])
        return sampler if any(sampler.share) else None
