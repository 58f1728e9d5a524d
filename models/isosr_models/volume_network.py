"""Networks of volumes: what restorers are made of and methods train."""

from __future__ import annotations

from torch import nn


class VolumeNetwork(nn.Module):
    """A network from a volume, (n, 1, z, y, x) float32 with the window at 0 and 1, to its like.

    Attributes
    ----------
    stride : int
        Origins of blocks must be multiples of this, in voxels, or pooling sees other partners.
    receptive_radius : int
        In voxels: what lies further away has no influence on an output voxel.
    """

    stride: int
    receptive_radius: int
