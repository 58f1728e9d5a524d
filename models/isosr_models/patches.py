"""Square patches of slices, cut from crops at random, and what makes lateral ones coarser."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["lateral", "axial"]

_FACING = {"lateral": ((0, 1, 2), (0, 2, 1)), "axial": ((1, 0, 2), (2, 0, 1))}
"""For each way that a slice may face: the axis normal to it, and those of its height and width."""

_SIGMA_PER_MEDIAN = 1.4826
"""Standard deviation of normal numbers over the median of their absolute values."""


def draw_patches(crops: Tensor, kind: Kind, count: int, side: int) -> Tensor:
    """Cut patches from random places of crops.

    Parameters
    ----------
    crops : Tensor, (n, 1, z, y, x)
    kind : {"lateral", "axial"}
        ``"lateral"``: of XY planes, as they lie or with x as their height. ``"axial"``: of XZ and
        YZ planes, with z as their height.
    count, side : int
        How many, and how many voxels they are long, at most as many as a crop.

    Returns
    -------
    Tensor, (count, 1, side, side)
    """
    facing = _FACING[kind]
    patches = []
    for _ in range(count):
        crop = crops[_below(len(crops)), 0].permute(facing[_below(len(facing))])
        place, top, left = (
            _below(n - k + 1) for n, k in zip(crop.shape, (1, side, side), strict=True)
        )
        patches.append(crop[place, top : top + side, left : left + side])
    return torch.stack(patches)[:, None]


def _below(limit: int) -> int:
    # Of the generator whose state a checkpoint keeps, on the CPU wherever the crops are.
    return int(torch.randint(limit, ()))


def noise_of(patches: Tensor) -> Tensor:
    """Draw white noise as strong as that of patches.

    Its standard deviation is told from each patch by itself: from the median of the absolute
    second differences along both axes, in which there is little of what a microscope resolves.

    Parameters
    ----------
    patches : Tensor, (n, 1, height, width)

    Returns
    -------
    Tensor, same shape
    """
    curvature = torch.tensor([1.0, -2.0, 1.0], dtype=patches.dtype, device=patches.device)
    kernel = torch.outer(curvature, curvature) / curvature.square().sum()
    highest = functional.conv2d(patches, kernel[None, None])
    level = highest.abs().flatten(1).median(dim=1).values * _SIGMA_PER_MEDIAN
    white = torch.randn(patches.shape, dtype=patches.dtype)
    return white.to(patches.device) * level.view(-1, 1, 1, 1)


def coarsened(patches: Tensor, factor: float) -> Tensor:
    """Take every `factor`-th row of patches, and interpolate the others linearly between them.

    This is what reading a volume on the isotropic grid does to planes that are measured `factor`
    lateral voxels apart. The first row that is taken is drawn, the same for all patches; beyond
    their borders patches are reflected.

    Parameters
    ----------
    patches : Tensor, (n, 1, height, width)
    factor : float
        Where it is no whole number, the nearest rows are taken. 1 or below: patches are given back.
    """
    if factor <= 1:
        return patches
    last = patches.shape[2] - 1
    first = _below(math.ceil(factor))
    steps = torch.arange(-1, math.ceil(last / factor) + 2, dtype=torch.float64)
    taken = torch.floor(first + factor * steps + 0.5).long()
    rows = torch.arange(last + 1)
    above = torch.searchsorted(taken, rows, right=True)
    lower, upper = taken[above - 1], taken[above]
    share = ((rows - lower) / (upper - lower)).to(patches.device, patches.dtype)
    below, beyond = (_rows(patches, chosen) for chosen in (lower, upper))
    return torch.lerp(below, beyond, share[:, None])


def _rows(patches: Tensor, chosen: Tensor) -> Tensor:
    """Return rows of patches, reflected at the borders."""
    last = patches.shape[2] - 1
    inside = last - (last - chosen.abs()).abs()
    return patches.index_select(2, inside.to(patches.device))
