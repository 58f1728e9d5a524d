"""Crops as they lie in a store, and what makes training crops of them on the device.

A loader sends the measured voxels, two bytes each where a training crop has four, and fewer planes
where z is sampled more coarsely. Resampling, the intensity window, flips and rotations are left to
the device that trains.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isosr_pipeline.isotropic import locate
from isosr_pipeline.resampling import resampled


class StoredCrop(NamedTuple):
    """One crop, or a batch of them with an axis before the others.

    Parameters
    ----------
    voxels : Tensor, (planes, y, x) of the store's dtype
        Measured planes; those beyond what the crop needs are zero or neighbours.
    below : Tensor, (z,) int64
        For each plane of the crop, the measured plane at or below it.
    share : Tensor, (z,) float32
        How far the plane lies from there to the next one: at least 0, below 1.
    window : Tensor, (2,) float32
        The intensity that becomes 0, and how much above it lies what becomes 1.
    flips : Tensor, (3,) bool
        Which axes are reversed.
    turns : Tensor, () int64
        Quarter turns about z, after the flips.
    """

    voxels: Tensor
    below: Tensor
    share: Tensor
    window: Tensor
    flips: Tensor
    turns: Tensor


class Planes(NamedTuple):
    """The measured planes of a crop, and where the crop's own lie among them.

    Parameters
    ----------
    first, stop : int
        Range of measured planes.
    below : ndarray, (z,) int64
        Counted from `first`.
    share : ndarray, (z,) float32
    """

    first: int
    stop: int
    below: NDArray[np.int64]
    share: NDArray[np.float32]


def measured_planes(start: int, length: int, planes_per_voxel: float, depth: int) -> Planes:
    """Return the measured planes of a crop: as many wherever the crop starts.

    Parameters
    ----------
    start, length : int
        Of the crop along z, in voxels of the isotropic grid.
    planes_per_voxel : float
        Of an `IsotropicView`.
    depth : int
        Measured planes of the volume.
    """
    below, share = locate(np.arange(start, start + length), planes_per_voxel, depth)
    count = min(planes_needed(length, planes_per_voxel), depth)
    first = min(int(below[0]), depth - count)
    return Planes(first, first + count, below - first, share)


def planes_needed(length: int, planes_per_voxel: float) -> int:
    """Return the most measured planes that a crop of a length lies in, wherever it starts."""
    if planes_per_voxel == 1:
        return length
    return math.ceil((length - 1) * planes_per_voxel) + 2


def prepare(stored: StoredCrop, device: torch.device) -> Tensor:
    """Make training crops of a batch.

    Parameters
    ----------
    stored : StoredCrop
        A batch.
    device : torch.device
        Where it is done.

    Returns
    -------
    Tensor, (n, 1, z, y, x) float32
        On the isotropic grid, with the intensity window at 0 and 1: equal to what `IsotropicView`
        reads, to float rounding.
    """
    voxels = stored.voxels.to(device, non_blocking=True)
    crops = []
    for number, planes in enumerate(voxels):
        crop = resampled(planes.to(torch.float32), stored.below[number], stored.share[number])
        low, width = stored.window[number].tolist()
        crop = (crop - low) / width
        flipped = [axis for axis, flip in enumerate(stored.flips[number].tolist()) if flip]
        crop = crop.flip(flipped) if flipped else crop
        turns = int(stored.turns[number])
        crops.append(crop.rot90(turns, (1, 2)) if turns else crop)
    return torch.stack(crops)[:, None]


def stored_crop(
    voxels: NDArray[Any],
    planes: Planes,
    window: tuple[float, float],
    flips: tuple[bool, bool, bool],
    turns: int,
) -> StoredCrop:
    """Bring what belongs to a crop into the form of tensors; see `StoredCrop`."""
    low, high = window
    return StoredCrop(
        torch.from_numpy(voxels),
        torch.from_numpy(planes.below),
        torch.from_numpy(planes.share),
        torch.tensor([low, high - low], dtype=torch.float32),
        torch.tensor(flips),
        torch.tensor(turns),
    )
