"""A restored volume as its blur and the measured planes show it: what a worker opens once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isosr_models.reblurring import Reblur
from isosr_pipeline.errors import HopelessError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.restoring.device import DeviceRestorer
from isosr_pipeline.settings import Device
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.blocks import compared
from isosr_pipeline.trust.blurs import KnownBlur
from isosr_pipeline.trust.planes import Planes, SampledPlanes, at_planes

_OPENING = threading.Lock()
"""A worker has several threads, of which one opens and loads for all."""


class Compared(NamedTuple):
    """The measured planes of a box of the restored volume.

    Parameters
    ----------
    positions : ndarray, (planes,) float64
        Where they lie along z, in voxels of the restored volume.
    measured, reblurred : ndarray, (planes, y, x) float32
        Intensities as stored, and those of the restored volume, blurred once more.
    """

    positions: NDArray[np.float64]
    measured: NDArray[np.float32]
    reblurred: NDArray[np.float32]


@dataclass
class Reblurring:
    """Blurs boxes of a restored volume and reads the measured planes that they must explain.

    Parameters
    ----------
    store, restored : Path
        The measured volume, and what was made of it.
    store_id, restored_id : str
        Their identities; others in their place are refused.
    blur : KnownBlur
    device : {"auto", "cpu", "cuda"}
    windows : list of tuple of 2 floats
        Intensities that are 0 and 1 to the blur, of each channel of the restored volume.
    channels : list of int
        Those of the measured volume that the channels of the restored one are.
    origin : Zyx
        Where the restored volume begins on the isotropic grid of the measured one, in voxels.
    planes : Planes
    """

    store: Path
    restored: Path
    store_id: str
    restored_id: str
    blur: KnownBlur
    device: Device
    windows: list[tuple[float, float]]
    channels: list[int]
    origin: Zyx
    planes: Planes

    @cached_property
    def shape(self) -> Zyx:
        """Of the restored volume, in voxels."""
        _, z, y, x = self._made.shape
        return Zyx(z, y, x)

    def compare(self, channel: int, box: Box) -> Compared:
        """Bring a box of the restored volume to the measured planes that lie in it.

        Parameters
        ----------
        channel : int
            Of the restored volume.
        box : Box
            In voxels of the restored volume, in which it lies.

        Raises
        ------
        DoesNotFitError
            When the device has not enough memory.
        HopelessError
            When another store has taken the place of one of the two.
        """
        with _OPENING:
            _ = self._device, self._planes
        found = self.planes.within(box.start.z, box.stop.z)
        positions = self.planes.positions(found)
        _, height, width = box.shape
        if not len(found):
            nothing = np.empty((0, height, width), np.float32)
            return Compared(positions, nothing, nothing)
        blurred = self._blurred(channel, box)
        reblurred = at_planes(blurred, positions, box)
        _, top, left = self.origin
        planes = Box(
            Zyx(found.start, box.start.y + top, box.start.x + left),
            Zyx(found.stop, box.stop.y + top, box.stop.x + left),
        )
        measured = self._planes.read(self.channels[channel], planes).astype(np.float32)
        return Compared(positions, measured, reblurred)

    def beyond(self, positions: NDArray[np.float64], box: Box) -> NDArray[np.float32]:
        """Return the share of light that comes from beyond the restored volume.

        Parameters
        ----------
        positions : ndarray, (planes,) float64
        box : Box
            Where the planes lie, in voxels.

        Returns
        -------
        ndarray, (planes, y, x) float32
            The sum over all axes: an upper bound.
        """
        places = [
            np.rint(positions).astype(np.intp),
            *(np.arange(a, b) for a, b in zip(box.start[1:], box.stop[1:], strict=True)),
        ]
        z, y, x = (
            self._lost(axis, at, self.shape[axis]).astype(np.float32)
            for axis, at in enumerate(places)
        )
        return np.asarray(z[:, None, None] + y[:, None] + x, np.float32)

    def _lost(self, axis: int, at: NDArray[np.intp], length: int) -> NDArray[np.float64]:
        share = self._reblur.beyond(axis)
        last = len(share) - 1
        before, after = at.clip(0, last), (length - 1 - at).clip(0, last)
        return np.asarray(share[before] + share[after], np.float64)

    def require_same(self) -> None:
        """Refuse what has been made of volumes that were replaced meanwhile.

        Raises
        ------
        HopelessError
            Naming the store.
        """
        for volume, identity in ((self._source, self.store_id), (self._made, self.restored_id)):
            if volume.identity != identity or not volume.is_same():
                raise HopelessError(
                    f"{volume.path} is not what it was when this run began: it has been replaced; "
                    "nothing is made of it: bring it back and go on with --resume, or start again "
                    "with --overwrite"
                )

    @property
    def block_halo(self) -> tuple[int, int]:
        """Context around what is compared at once, with that of `sampling`, and the stride."""
        function = self._reblur.function
        return function.halo, function.stride

    def _blurred(self, channel: int, box: Box) -> NDArray[np.float32]:
        halo, stride = self.block_halo
        place = box.shifted((self.origin.z, 0, 0)) if self._reblur.coarse else box
        return self._device.restore(channel, compared(place, halo, stride), []).values

    @cached_property
    def _reblur(self) -> Reblur:
        return self.blur.load(self.device)

    @cached_property
    def _source(self) -> Volume:
        return Volume(self.store)

    @cached_property
    def _made(self) -> Volume:
        return Volume(self.restored)

    @cached_property
    def _planes(self) -> LevelReader:
        return LevelReader(self._source)

    @cached_property
    def _device(self) -> DeviceRestorer:
        function, reader = self._reblur.function, LevelReader(self._made)
        if not self._reblur.coarse:
            return DeviceRestorer(IsotropicView(self._made), reader, function, self.windows)
        count, _, height, width = self._made.shape
        shape = (count, self.planes.count, height, width)
        size = self._source.voxel_size
        sampled = SampledPlanes(reader, self._made.path, self.planes, shape, size)
        return DeviceRestorer(IsotropicView(sampled), sampled, function, self.windows)
