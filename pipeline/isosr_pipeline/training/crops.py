"""Random crops of volumes, read straight from their stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from isosr_pipeline.errors import InputError
from isosr_pipeline.foreground import MOST_VOXELS, choose_level, foreground_shares
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.sampling import Cells, Sampler
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import Sampling
from isosr_pipeline.training.stored_crops import (
    StoredCrop,
    measured_planes,
    planes_needed,
    prepare,
    stored_crop,
)

_SAME_VOXELS = 0.01


@dataclass
class Crops(Dataset[StoredCrop]):
    """An endless series of crops: the n-th is the same whoever reads it, in whatever order.

    As a dataset it gives crops as they are stored; `prepare` makes training crops of a batch.

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes of one microscope.
    crop : Zyx
        Shape of a crop, in voxels of the isotropic grid.
    windows : sequence of sequence of tuple of 2 floats
        For each store and channel, the intensities that become 0 and 1.
    seed : int
    stream : int
        Another number gives another series for the same seed.
    sampling : {"foreground", "uniform"}
        Where crops are taken from: `Sampler`. Stores are drawn in proportion to their foreground,
        or to their voxels.
    rotations : bool
        Whether crops, as long along y as along x, are turned about z by random quarter turns.
    """

    stores: Sequence[Path]
    crop: Zyx
    windows: Sequence[Sequence[tuple[float, float]]]
    seed: int
    stream: int = 0
    sampling: Sampling = "foreground"
    rotations: bool = False

    def of_stream(self, stream: int) -> Crops:
        """Return another series, drawn in the same way; foreground is not looked for again."""
        other = copy(self)
        other.stream = stream
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Take along to another process what is known of the stores, and not the open stores."""
        known = {**self.__dict__, "sampler": self.sampler}
        known.pop("_opened", None)
        return known

    @cached_property
    def _opened(self) -> list[_Opened]:
        return [_Opened(store) for store in self.stores]

    @cached_property
    def sampler(self) -> Sampler:
        """What draws places."""
        cells = [Cells.of(opened.view.shape, self.crop) for opened in self._opened]
        levels = [choose_level(opened.volume) for opened in self._opened]
        if self.sampling == "uniform" or None in levels:
            return Sampler(cells, [opened.volume.shape[0] for opened in self._opened])
        found = [
            [
                foreground_shares(o.view, o.volume, channel, level or 0, c, self.crop, window)
                for channel, window in enumerate(windows)
            ]
            for o, level, c, windows in zip(self._opened, levels, cells, self.windows, strict=True)
        ]
        return Sampler.weighted(cells, found)

    def remarks(self) -> Iterator[str]:
        """Say where crops are drawn from, if that isn't everywhere."""
        if self.sampling == "uniform":
            return
        large = [o.volume.path for o in self._opened if choose_level(o.volume) is None]
        if large:
            yield (
                f"crops are drawn from everywhere, since {large[0]} has no level of at most "
                f"{MOST_VOXELS / 1e6:.0f} million voxels to tell foreground from; convert makes one"
            )
            return
        for store, share in zip(self.stores, self.sampler.share, strict=True):
            if share:
                yield f"{store}: {share:.1%} is foreground, where nine crops in ten are drawn"
            elif any(self.sampler.share):
                yield f"{store}: nothing stands out; only crops drawn from everywhere may be of it"
            else:
                yield f"{store}: nothing stands out, so that crops are drawn from everywhere"

    def __getitem__(self, index: int) -> StoredCrop:
        """Read a crop; its tensors have the same shapes and dtypes for all."""
        rng = np.random.default_rng((self.seed, self.stream, index))
        store, channel, start = self.sampler.draw(rng)
        opened = self._opened[store]
        ratio, depth = opened.view.planes_per_voxel, opened.volume.shape[1]
        planes = measured_planes(start.z, self.crop.z, ratio, depth)
        stop = Zyx(planes.stop, start.y + self.crop.y, start.x + self.crop.x)
        box = Box(Zyx(planes.first, start.y, start.x), stop)
        voxels = np.zeros((self._planes, *self.crop[1:]), self._dtype)
        voxels[: box.shape.z] = opened.reader.read(channel, box)
        z, y, x = (bool(rng.integers(2)) for _ in AXES)
        turns = int(rng.integers(4)) if self.rotations else 0
        return stored_crop(voxels, planes, self.windows[store][channel], (z, y, x), turns)

    def read(self, index: int, device: torch.device) -> Tensor:
        """Read a crop and make a training crop of it, (1, z, y, x) float32."""
        return prepare(default_collate([self[index]]), device)[0]

    @cached_property
    def _planes(self) -> int:
        return max(
            min(planes_needed(self.crop.z, o.view.planes_per_voxel), o.volume.shape[1])
            for o in self._opened
        )

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        """One that holds the voxels of all stores, so that a batch can have crops of each."""
        return np.result_type(*(opened.volume.dtype for opened in self._opened))


class _Opened:
    """A store that is open in this process."""

    def __init__(self, store: Path) -> None:
        self.volume = Volume(store)
        self.view = IsotropicView(self.volume)
        self.reader = LevelReader(self.volume)


def are_alike(one: float, other: float) -> bool:
    """Return whether isotropic voxels, in µm, are as large as each other for a model: to 1 %."""
    return abs(one - other) <= _SAME_VOXELS * one


def check_alike(views: Sequence[IsotropicView]) -> None:
    """Refuse volumes whose isotropic voxels are not as large as those of the first.

    Raises
    ------
    InputError
        Naming both.
    """
    first, *others = views
    for other in others:
        a, b = first.voxel_size[2], other.voxel_size[2]
        if not are_alike(a, b):
            raise InputError(
                f"{first.volume.path} has isotropic voxels of {a:g} µm and {other.volume.path} of "
                f"{b:g} µm, and a model is of one microscope; train on each by itself"
            )


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
