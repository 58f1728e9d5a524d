"""The 3D U-Net generator of Park et al. 2022 (Methods, network architecture)."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isosr_models.errors import ModelConfigError
from isosr_models.layers import fold_norm, instance_norm_3d, untracked, use_statistics
from isosr_models.volume_network import VolumeNetwork

_Context = AbstractContextManager[None]

DEPTH = 2
"""How often the network halves its input."""


def _conv_block(in_channels: int, out_channels: int, *, norm: bool = True) -> nn.Sequential:
    convolution = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
    between = [instance_norm_3d(out_channels)] if norm else []
    return nn.Sequential(convolution, *between, nn.ReLU(inplace=True))


def _recomputing(stage: nn.Module) -> tuple[_Context, _Context]:
    """Return contexts for a stage's two runs: the second must not move running statistics again."""
    return nullcontext(), untracked(stage)


class UNet3d(VolumeNetwork):
    """3D U-Net with two poolings, from a blurred volume to one with isotropic resolution.

    Encoder of two levels (widths w and 2w), a bottleneck of three convolutions (4w), a decoder with
    transposed convolutions and concatenated skips, and two convolutions of kernel 1.

    Parameters
    ----------
    width : int
        Feature channels w of the first level; 64 in the publication (7,077,251 parameters).
    residual : bool
        False: the output is the sigmoid of the last convolution, as published. True: the last
        convolution is added to the input and starts at zero, so that training starts from the
        identity; intensities above the window then pass through instead of being saturated.
    bottleneck_norm : bool
        Whether the bottleneck is normalised like the rest, as in the authors' code; their formula
        writes it without.

    Attributes
    ----------
    checkpointing : bool
        Whether training keeps the activations of no stage and computes them a second time for the
        gradient: less memory for more time, with the same result. Off at first.

    Raises
    ------
    ModelConfigError
        When `width` is below 1.
    """

    stride = 2**DEPTH
    """Origins of blocks must be multiples of this, in voxels, or pooling sees other partners."""

    receptive_radius = 2 * (1 + 2) + 4 * 3 + 2 * 2 + 1 + (stride - 1)
    """26 voxels: convolutions of encoder (2 at 1x, 2 at 2x), bottleneck (3 at 4x) and decoder (2 at
    2x, 1 at 1x), and the reach of a pooling cell of 4 voxels."""

    def __init__(
        self, width: int = 64, *, residual: bool = False, bottleneck_norm: bool = True
    ) -> None:
        super().__init__()
        if width < 1:
            raise ModelConfigError(f"width is {width}: a network needs at least one channel")
        w = width
        self.width, self.residual, self.bottleneck_norm = width, residual, bottleneck_norm
        self.checkpointing = False
        self.encoder1 = nn.Sequential(_conv_block(1, w), _conv_block(w, w))
        self.encoder2 = nn.Sequential(_conv_block(w, 2 * w), _conv_block(2 * w, 2 * w))
        self.bottleneck = nn.Sequential(
            *(_conv_block(n * w, 4 * w, norm=bottleneck_norm) for n in (2, 4, 4))
        )
        self.up2 = nn.ConvTranspose3d(4 * w, 2 * w, kernel_size=2, stride=2)
        self.decoder2 = nn.Sequential(_conv_block(4 * w, 2 * w), _conv_block(2 * w, 2 * w))
        self.up1 = nn.ConvTranspose3d(2 * w, w, kernel_size=2, stride=2)
        self.decoder1 = _conv_block(2 * w, w)
        self.head = nn.Sequential(nn.Conv3d(w, 1, kernel_size=1), nn.Conv3d(1, 1, kernel_size=1))
        self.pool = nn.MaxPool3d(2)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.residual:
            first, last = (layer for layer in self.head if isinstance(layer, nn.Conv3d))
            nn.init.zeros_(first.weight)
            nn.init.ones_(last.weight)

    def forward(self, volume: Tensor) -> Tensor:
        """Restore a volume.

        Parameters
        ----------
        volume : Tensor, (n, 1, z, y, x) float32
            Intensities with the window at 0 and 1; each length a multiple of `stride`.

        Returns
        -------
        Tensor, same shape
        """
        windowed = volume.clamp(0.0, 1.0)
        fine = self._run(self.encoder1, windowed)
        coarse = self._run(self.encoder2, self.pool(fine))
        deep = self._run(self.bottleneck, self.pool(coarse))
        coarse = self._run(self.decoder2, torch.cat((self.up2(deep), coarse), dim=1))
        fine = self._run(self.decoder1, torch.cat((self.up1(coarse), fine), dim=1))
        out: Tensor = self.head(fine)
        return volume + out if self.residual else torch.sigmoid(out)

    def _run(self, stage: nn.Module, features: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            plain: Tensor = stage(features)
            return plain
        out: Tensor = checkpoint(
            stage,
            features,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=partial(_recomputing, stage),
        )
        return out

    def folded(self) -> UNet3d:
        """Return a copy for inference whose frozen normalisation is part of its convolutions."""
        network = copy.deepcopy(self)
        use_statistics(network, "frozen")
        for block in list(network.modules()):
            if isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv3d):
                norm = block[1]
                if isinstance(norm, nn.InstanceNorm3d):
                    block[0] = fold_norm(block[0], norm)
                    block[1] = nn.Identity()
        return network.requires_grad_(False)
