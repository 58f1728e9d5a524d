"""A small 2D U-Net that restores slices, without normalisation layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from isosr_models.errors import ModelConfigError
from isosr_models.slices import PlaneNetwork

_DEPTH = 2


def _convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet2d(PlaneNetwork):
    """2D U-Net with two poolings, from a blurred slice to a sharp one.

    Two convolutions at each of three levels (widths w, 2w, 4w), transposed convolutions and
    concatenated skips on the way back, and a convolution of kernel 1 that is added to the input.
    That one starts at zero, so that training starts from the identity. Nothing is normalised or
    clamped: intensities above the window are restored like others.

    Of neighbours, the first convolution sees in how far they differ from the slice. What it makes
    of that starts at zero, and stays there as long as none of them differs.

    Parameters
    ----------
    width : int
        Feature channels w of the first level.
    neighbours : int
        Slices on each side of the one that is restored.

    Attributes
    ----------
    features : int
        The parameter `width`; the attribute `width` is that of every `PlaneNetwork`.

    Raises
    ------
    ModelConfigError
        When `width` is below 1, or `neighbours` below 0.
    """

    stride = 1 << _DEPTH
    receptive_radius = 2 * (1 + 2 + 4 + 2 + 1) + (stride - 1)
    """23 voxels: two convolutions at 1x, 2x, 4x, 2x and 1x, and the reach of a pooling cell."""

    def __init__(self, width: int = 16, neighbours: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise ModelConfigError(f"width is {width}: a network needs at least one channel")
        if neighbours < 0:
            raise ModelConfigError(f"neighbours is {neighbours}: give 0 or more slices")
        self.neighbours = neighbours
        w = self.features = width
        # As many are concatenated in full resolution.
        self.width = 2 * width
        self.encoder1 = _convolutions(1 + 2 * neighbours, w)
        self.encoder2 = _convolutions(w, 2 * w)
        self.bottleneck = _convolutions(2 * w, 4 * w)
        self.up2 = nn.ConvTranspose2d(4 * w, 2 * w, kernel_size=2, stride=2)
        self.decoder2 = _convolutions(4 * w, 2 * w)
        self.up1 = nn.ConvTranspose2d(2 * w, w, kernel_size=2, stride=2)
        self.decoder1 = _convolutions(2 * w, w)
        self.head = nn.Conv2d(w, 1, kernel_size=1)
        self.pool = nn.MaxPool2d(2)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)
        first = cast(nn.Conv2d, self.encoder1[0]).weight
        nn.init.kaiming_normal_(first[:, :1], nonlinearity="relu")
        nn.init.zeros_(first[:, 1:])

    @property
    def sees_neighbours(self) -> bool:
        """Whether anything is made of neighbours: not before something was learned from them."""
        return bool(cast(nn.Conv2d, self.encoder1[0]).weight[:, 1:].any())

    def forward(self, stack: Tensor) -> Tensor:
        """Restore slices.

        Parameters
        ----------
        stack : Tensor, (n, 1 + 2 neighbours, height, width) float32
            Intensities with the window at 0 and 1; height and width are multiples of `stride`.

        Returns
        -------
        Tensor, (n, 1, height, width) float32
        """
        before, plane, after = torch.split(stack, [self.neighbours, 1, self.neighbours], dim=1)
        fine = self.encoder1(torch.cat((plane, before - plane, after - plane), dim=1))
        coarse = self.encoder2(self.pool(fine))
        deep = self.bottleneck(self.pool(coarse))
        coarse = self.decoder2(torch.cat((self.up2(deep), coarse), dim=1))
        fine = self.decoder1(torch.cat((self.up1(coarse), fine), dim=1))
        added: Tensor = self.head(fine)
        return plane + added
