"""Restores boxes of a volume on a device, at which one thread is at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isosr_models.memory import is_out_of_memory
from isosr_models.restorers import LocalFunction
from isosr_pipeline.errors import WorkFailedError
from isosr_pipeline.geometry import Box, Context
from isosr_pipeline.isotropic import IsotropicView, Measured
from isosr_pipeline.resampling import on_grid

_AT_THE_DEVICE = threading.Lock()
"""While one thread computes, the others read, decode, encode and write."""


class Restored(NamedTuple):
    """A restored box.

    Parameters
    ----------
    values : ndarray, (z, y, x) float32
        In the units of the volume.
    saturated : ndarray, (z, y, x) bool, or None
        Where intensities lay outside the window, which the restorer can't give back; None where it
        can.
    """

    values: NDArray[np.float32]
    saturated: NDArray[np.bool_] | None


class DoesNotFitError(Exception):
    """A block does not fit the memory of the device."""


class Reader(Protocol):
    """What reads boxes of a volume, such as a `LevelReader`."""

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the volume; returns (z, y, x)."""
        ...


@dataclass
class DeviceRestorer:
    """A restorer, or another local function, on its device, with the volume that it is for.

    Parameters
    ----------
    view : IsotropicView
    reader : Reader
        Of the same volume.
    restorer : LocalFunction
    windows : sequence of tuple of 2 floats
        Intensities of each channel of the volume that are 0 and 1; not used by restorers that take
        intensities as stored.
    """

    view: IsotropicView
    reader: Reader
    restorer: LocalFunction
    windows: Sequence[tuple[float, float]]

    def restore(self, channel: int, block: Context, passed: Sequence[Box]) -> Restored:
        """Read a block with its halo, and restore it.

        Parameters
        ----------
        channel : int
        block : Context
        passed : sequence of Box
            Parts of what is kept, counted from its start, that are only resampled.

        Raises
        ------
        DoesNotFitError
            When the device has not enough memory.
        WorkFailedError
            When there are NaN or infinities in what is read, or in what comes out.
        """
        voxels, place = self._read(channel, block.read)
        low, high = self.windows[channel] if self.restorer.normalised else (0.0, 1.0)
        with _AT_THE_DEVICE:
            try:
                grid = on_grid(voxels, place, self.restorer.device)
                found = self._restored(grid, block.keep, low, high - low, passed)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise DoesNotFitError from error
        if not _finite(found.values):
            raise WorkFailedError(
                f"the model made NaN or infinities of block {block.kept}; nothing of it is "
                "written: look for extreme intensities there, or train again"
            )
        return found

    def resample(self, channel: int, box: Box) -> NDArray[np.float32]:
        """Bring a box onto the isotropic grid, and do nothing else to it.

        Raises
        ------
        WorkFailedError
            When there are NaN or infinities in it.
        """
        voxels, place = self._read(channel, box)
        values: NDArray[np.float32] = on_grid(voxels, place, torch.device("cpu")).numpy()
        return values

    def _read(self, channel: int, box: Box) -> tuple[NDArray[Any], Measured]:
        place = self.view.measured(box)
        voxels = self.reader.read(channel, place.box)
        if voxels.dtype.kind == "f" and not _finite(voxels):
            first = np.argwhere(~np.isfinite(voxels))[0]
            z, y, x = (int(a + b) for a, b in zip(first, place.box.start, strict=True))
            raise WorkFailedError(
                f"{self.view.volume.path}: channel {channel} has {voxels[tuple(first)]} at z {z}, "
                f"y {y}, x {x}; nothing is made of it: replace it in the source, and convert"
            )
        return voxels, place

    def _restored(
        self, grid: Tensor, keep: Box, low: float, scale: float, passed: Sequence[Box]
    ) -> Restored:
        kept = grid[keep.slices]
        if not self.restorer.normalised:
            return Restored(np.ascontiguousarray(kept.cpu().numpy()), None)
        normalised = (grid - low) / scale
        result = self.restorer(normalised[None, None], keep.slices)[0, 0]
        inside = normalised[keep.slices]
        saturated = (inside < 0) | (inside > 1) if self.restorer.saturates else None
        result = result * scale + low
        for box in passed:
            result[box.slices] = kept[box.slices]
            if saturated is not None:
                saturated[box.slices] = False
        return Restored(
            result.cpu().numpy(), None if saturated is None else saturated.cpu().numpy()
        )


def _finite(values: NDArray[Any]) -> bool:
    # The least of values with NaN is NaN; infinities are the least or the largest.
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))
