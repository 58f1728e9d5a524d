"""Random crops of volumes, read straight from their stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.store.volume import Volume


@dataclass
class Crops(Dataset[Tensor]):
    """An endless series of crops: the n-th is the same whoever reads it, in whatever order.

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes; each is drawn in proportion to its voxels.
    crop : Zyx
        Shape of a crop, in voxels of the isotropic grid.
    windows : sequence of sequence of tuple of 2 floats
        For each store and channel, the intensities that become 0 and 1.
    seed : int
    stream : int
        Another number gives another series for the same seed.
    """

    stores: Sequence[Path]
    crop: Zyx
    windows: Sequence[Sequence[tuple[float, float]]]
    seed: int
    stream: int = 0

    @cached_property
    def _views(self) -> list[IsotropicView]:
        return [IsotropicView(Volume(store)) for store in self.stores]

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        voxels = np.array([float(np.prod(view.shape)) for view in self._views])
        return np.asarray(voxels / voxels.sum(), np.float64)

    def __getitem__(self, index: int) -> Tensor:
        """Read a crop.

        Returns
        -------
        Tensor, (1, z, y, x) float32
            With the intensity window at 0 and 1, flipped on random axes.
        """
        rng = np.random.default_rng((self.seed, self.stream, index))
        store = int(rng.choice(len(self._views), p=self._weights))
        view = self._views[store]
        channel = int(rng.integers(view.volume.shape[0]))
        start = Zyx(
            *(int(rng.integers(n - c + 1)) for n, c in zip(view.shape, self.crop, strict=True))
        )
        stop = Zyx(*(a + c for a, c in zip(start, self.crop, strict=True)))
        low, high = self.windows[store][channel]
        data = (view.read(channel, Box(start, stop)) - np.float32(low)) / np.float32(high - low)
        flipped = tuple(axis for axis in range(3) if rng.integers(2))
        return torch.from_numpy(np.ascontiguousarray(np.flip(data, flipped)))[None]


def check_crop(crop: Zyx, view: IsotropicView, stride: int, smallest: int) -> None:
    """Refuse crops that a volume doesn't hold or networks can't work on.

    Parameters
    ----------
    crop : Zyx
    view : IsotropicView
    stride : int
        Lengths must be multiples of it.
    smallest : int
        Shortest length that the networks can work on.

    Raises
    ------
    InputError
        Naming the axis.
    """
    for axis, length, available in zip(AXES, crop, view.shape, strict=True):
        largest = available // stride * stride
        if available < smallest:
            raise InputError(
                f"{view.volume.path}: axis {axis} has {available} isotropic voxels, and training "
                f"needs {smallest}; train on a larger volume"
            )
        if length % stride or not smallest <= length <= largest:
            raise InputError(
                f"crop is {length} along {axis}: it must be a multiple of {stride} between "
                f"{smallest} and {largest}, what {view.volume.path} holds; "
                f"give --crop {min(max(length // stride * stride, smallest), largest)}"
            )
