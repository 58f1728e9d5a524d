"""The residual network of Ning et al. 2023, which works on planes at full resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isosr_models.errors import ModelConfigError
from isosr_models.slices import PlaneNetwork

_SLOPE = 0.2
_EDGE, _EDGE_RADIUS = 7, 3


class ResNet2d(PlaneNetwork):
    """2D residual network without normalisation, pooling or upsampling.

    A head of kernel 7 with reflected borders, two convolutions of kernel 3, residual blocks of two
    such convolutions each, two more of them, and a tail of kernel 7 with reflected borders, with
    LeakyReLU 0.2 between them (Ning et al. 2023, network structure of Self-Net).

    Parameters
    ----------
    width : int
        Feature channels; 64 in the publication.
    blocks : int
        Residual blocks; 6 in the publication.
    residual : bool
        True: the tail is added to the input and starts at zero, so that training starts from the
        identity; intensities outside the window then pass through instead of being saturated.

    Raises
    ------
    ModelConfigError
        When `width` is below 1, or `blocks` below 0.
    """

    stride = 1
    """Planes may start anywhere: nothing is pooled."""

    def __init__(self, width: int = 64, blocks: int = 6, *, residual: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise ModelConfigError(f"width is {width}: a network needs at least one channel")
        if blocks < 0:
            raise ModelConfigError(f"blocks is {blocks}: give 0 or more residual blocks")
        self.width, self.blocks, self.residual = width, blocks, residual
        self.receptive_radius = radius_of(blocks)
        self.head = nn.Sequential(_edge(1, width), _activation())
        self.before = _pair(width)
        self.body = nn.Sequential(*(_ResidualBlock(width) for _ in range(blocks)))
        self.after = _pair(width)
        self.tail = _edge(width, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.body:
            # Without normalisation, variances of all blocks would add up.
            if isinstance(block, _ResidualBlock):
                with torch.no_grad():
                    block.second.weight.mul_(0.1)
        if self.residual:
            nn.init.zeros_(self.tail.weight)

    def forward(self, planes: Tensor) -> Tensor:
        """Turn planes into others.

        Parameters
        ----------
        planes : Tensor, (n, 1, height, width) float32
            Intensities with the window at 0 and 1.

        Returns
        -------
        Tensor, same shape
        """
        windowed = planes.clamp(0.0, 1.0) if self.residual else planes
        features = self.before(self.head(windowed))
        out: Tensor = self.tail(self.after(self.body(features)))
        return planes + out if self.residual else out


def radius_of(blocks: int) -> int:
    """Return the receptive radius of a `ResNet2d` in voxels.

    Parameters
    ----------
    blocks : int
        Its residual blocks, of two convolutions that each reach one voxel; four more do so too.
    """
    return 2 * _EDGE_RADIUS + 4 + 2 * blocks


class _ResidualBlock(nn.Module):
    """Two convolutions whose result is added to what they are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.activation = _activation()
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.second(self.activation(self.first(features)))
        return features + added


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(_SLOPE, inplace=True)


def _edge(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, _EDGE, padding=_EDGE_RADIUS, padding_mode="reflect")


def _pair(width: int) -> nn.Sequential:
    """Two convolutions of kernel 3, each followed by the activation."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, padding=1), _activation()]
    return nn.Sequential(*layers)
