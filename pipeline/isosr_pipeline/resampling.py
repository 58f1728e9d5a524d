"""Brings what was measured onto the isotropic grid, on the device that works with it."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from isosr_pipeline.isotropic import Measured, is_run


def resampled(planes: Tensor, below: Tensor, share: Tensor) -> Tensor:
    """Interpolate linearly along z.

    Parameters
    ----------
    planes : Tensor, (planes, y, x) float32
        Measured ones, on any device.
    below : Tensor, (z,) int64
        For each plane of the result, the one at or below it; in the memory of the processor.
    share : Tensor, (z,) float32
        How far it lies from there to the next one: at least 0, below 1; likewise.

    Returns
    -------
    Tensor, (z, y, x) float32
        On the device of `planes`.
    """
    # Nothing here waits for a GPU: what is decided on is still in the memory of the processor.
    if not share.any() and torch.equal(below, torch.arange(len(below)) + below[0]):
        return planes[int(below[0]) : int(below[0]) + len(below)]
    lower = planes.index_select(0, below.to(planes.device, non_blocking=True))
    if not share.any():
        return lower
    above = (below + (share > 0)).to(planes.device, non_blocking=True)
    weight = share.to(planes.device, non_blocking=True)[:, None, None]
    return torch.lerp(lower, planes.index_select(0, above), weight)


def on_grid(voxels: NDArray[Any], measured: Measured, device: torch.device) -> Tensor:
    """Bring a box that was read onto the isotropic grid, reflected where it reaches beyond.

    Parameters
    ----------
    voxels : ndarray, (z, y, x)
        What was read of ``measured.box``, in the dtype of the volume.
    measured : Measured
        Of an `IsotropicView`.
    device : torch.device
        Where it is done.

    Returns
    -------
    Tensor, (z, y, x) float32
        Intensities as stored: equal to what `IsotropicView.read` gives, to float rounding.
    """
    # Two bytes a voxel go to the device, not four.
    planes = torch.from_numpy(voxels).to(device, non_blocking=True).to(torch.float32)
    grid = resampled(planes, torch.from_numpy(measured.below), torch.from_numpy(measured.share))
    for axis, indices in ((1, measured.rows), (2, measured.columns)):
        if not is_run(indices):
            grid = grid.index_select(axis, torch.from_numpy(indices).to(device))
    return grid
