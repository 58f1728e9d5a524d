"""The 2D PatchGAN discriminator and the planes that it is shown."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Orientation = Literal["xy", "xz", "yz"]

ORIENTATIONS: tuple[Orientation, ...] = ("xy", "xz", "yz")
_NORMAL_AXIS = {"xy": 2, "xz": 3, "yz": 4}
PROJECTED = (2, 10)
"""Fewest and most voxels that a projected plane is deep."""
MIN_PLANE = 32
"""Smallest side of a plane in voxels that leaves the discriminator a prediction map."""


class PatchGAN2d(nn.Module):
    """PatchGAN: strided layers, one of stride 1 and a prediction map.

    Kernel 4, padding 1, LeakyReLU 0.2.

    Parameters
    ----------
    width : int
        Channels of the first layer; 64 in the publication.
    strided : int
        Layers that halve what they are given, each but the first with twice the channels of the
        one before. A score sees 34 pixels across with two of them, and 70 with three.
    norm : bool
        Instance normalisation but in the first and last layer. It hides the contrast of a plane.
    """

    def __init__(self, width: int = 64, *, strided: int = 3, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 4, stride=2, padding=1)]
        factor = 1
        for stride in (*(strided - 1) * (2,), 1):
            layers += [
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(factor * width, 2 * factor * width, 4, stride=stride, padding=1),
                *([nn.InstanceNorm2d(2 * factor * width)] if norm else []),
            ]
            factor *= 2
        layers += [nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(factor * width, 1, 4, padding=1)]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, planes: Tensor) -> Tensor:
        """Judge planes, (n, 1, height, width) float32; returns a map of scores a plane."""
        scores: Tensor = self.layers(planes)
        return scores


def take_planes(
    volume: Tensor, orientation: Orientation, indices: Tensor, depth: int = 1
) -> Tensor:
    """Take planes out of a volume, or maximum projections of slabs.

    Parameters
    ----------
    volume : Tensor, (n, 1, z, y, x)
    orientation : {"xy", "xz", "yz"}
        The axes that lie in the plane.
    indices : Tensor, (k,) int64
        Positions along the axis normal to the plane, the same in all n volumes.
    depth : int
        Voxels along that axis of which a plane is the maximum. A slab starts at its position, or
        as far before it as it must to lie in the volume; there is at most the whole volume.

    Returns
    -------
    Tensor, (n * k, 1, height, width)
        The axis that comes first in (z, y, x) is the height.
    """
    axis = _NORMAL_AXIS[orientation]
    if depth > 1:
        thickness = min(depth, volume.shape[axis])
        starts = indices.clamp(max=volume.shape[axis] - thickness).tolist()
        slabs = [volume.narrow(axis, start, thickness) for start in starts]
        planes = torch.cat([slab.amax(axis, keepdim=True) for slab in slabs], axis)
    else:
        planes = torch.index_select(volume, axis, indices)
    return planes.movedim(axis, 1).flatten(0, 1)


def draw_planes(shape: torch.Size, orientation: Orientation, count: int) -> Tensor:
    """Draw positions of planes uniformly along the normal of an orientation.

    Parameters
    ----------
    shape : torch.Size
        Of the volumes, (n, 1, z, y, x).
    orientation : {"xy", "xz", "yz"}
    count : int
        At most as many as there are planes; none is drawn twice.

    Returns
    -------
    Tensor, (n,) int64
    """
    available = shape[_NORMAL_AXIS[orientation]]
    return torch.randperm(available)[: min(count, available)]


def draw_depth() -> int:
    """Draw how many voxels deep projected planes are, uniformly from the range `PROJECTED`."""
    fewest, most = PROJECTED
    return int(torch.randint(fewest, most + 1, ()))
