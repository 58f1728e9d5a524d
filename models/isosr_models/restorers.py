"""Restorers: trained models ready to run, as pure local functions of a volume."""

from __future__ import annotations

import copy
import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from isosr_models.arithmetic import Kept, Read, least_multiply_adds, padded_multiply_adds
from isosr_models.layers import Statistics, use_statistics
from isosr_models.precision import Precision, computing
from isosr_models.unet import UNet3d
from isosr_models.unpadded import LAYOUT, Keep, UnpaddedUNet3d, unpadded_multiply_adds

Lengths = tuple[int, int, int]
"""Along z, y, x, in voxels."""

_LOADED = 150 * 2**20


@runtime_checkable
class LocalFunction(Protocol):
    """A function from a block to one of the same shape that looks no further than its halo."""

    @property
    def halo(self) -> int:
        """Radius of the receptive field: an output voxel depends on no input further away."""
        ...

    @property
    def stride(self) -> int:
        """Origins and lengths of what it is given must be multiples of this, in voxels."""
        ...

    @property
    def normalised(self) -> bool:
        """Whether intensities must have the window at 0 and 1; else they come as stored."""
        ...

    @property
    def saturates(self) -> bool:
        """Whether intensities outside the window are lost, as with a sigmoid output."""
        ...

    @property
    def device(self) -> torch.device:
        """Where blocks are computed; they may come from another."""
        ...

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return about how many bytes of working memory a block takes.

        Parameters
        ----------
        kept, read : tuple of 3 ints
            Of the block, without its halo and with it, in voxels along z, y, x.
        """
        ...

    def work(self, kept: Kept, read: Read) -> int:
        """Return how many multiply-adds blocks take that form a grid.

        Parameters
        ----------
        kept : tuple of 3 sequences of slices
            Along z, y, x: the part of each block that is wanted, in voxels of the block.
        read : tuple of 3 sequences of ints
            Along z, y, x: the length of each block with its halo, in voxels.
        """
        ...

    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Compute a part of a block.

        Parameters
        ----------
        block : Tensor, (1, 1, z, y, x) float32
        keep : tuple of 3 slices
            The part, `halo` voxels or more from all sides of the block.

        Returns
        -------
        Tensor, (1, 1, z, y, x) float32
            The part, on `device`.
        """
        ...


@runtime_checkable
class Restorer(LocalFunction, Protocol):
    """A function from a blurred block to a restored one of the same shape."""

    @property
    def least_work(self) -> float:
        """Multiply-adds for a voxel of the output, where there is no halo."""
        ...


class IdentityRestorer:
    """Gives back what it is given: resampled only, the baseline of every comparison."""

    halo = 0
    stride = 1
    normalised = False
    saturates = False
    device = torch.device("cpu")
    least_work = 0.0

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return what the block takes as float32; see `Restorer`."""
        return 4 * math.prod(read)

    def work(self, kept: Kept, read: Read) -> int:
        """Return nothing, as nothing is computed; see `Restorer`."""
        return 0

    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Return the part as it is; see `Restorer`."""
        return block[:, :, keep[0], keep[1], keep[2]]


class NetworkRestorer:
    """A trained U-Net generator, on a device.

    Parameters
    ----------
    network : UNet3d
        Not changed: a copy is made for inference.
    statistics : {"frozen", "block"}
        ``"frozen"``: running statistics, folded into the convolutions; only then is the restorer a
        local function. ``"block"``: statistics of each block, as in the publication.
    device : torch.device
    precision : {"32", "bf16"}
        Of the convolutions; what is added to the input, and the result, are float32.
    """

    normalised = True

    def __init__(
        self,
        network: UNet3d,
        statistics: Statistics,
        device: torch.device,
        precision: Precision = "32",
    ) -> None:
        self.halo, self.stride = network.receptive_radius, network.stride
        self.saturates = not network.residual
        self.device, self.precision = device, precision
        self._width, self._statistics = network.width, statistics
        self._network: UnpaddedUNet3d | _PaddedUNet3d = (
            UnpaddedUNet3d(network) if statistics == "frozen" else _PaddedUNet3d(network)
        )
        self._network.to(device)
        self._network.to(memory_format=LAYOUT)  # type: ignore[call-overload]

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return what the largest stage takes; see `Restorer`.

        Measured for widths of 8 to 64 and blocks of 60 to 200 on a CPU, in either precision.
        """
        encoder, decoder = math.prod(read), math.prod(kept)
        if self._statistics == "block":
            return _LOADED + 32 * self._width * encoder
        return _LOADED + max((7 * self._width + 32) * encoder, 16 * self._width * decoder)

    @property
    def least_work(self) -> float:
        """Multiply-adds of the convolutions for a voxel; see `Restorer`."""
        return least_multiply_adds(self._width)

    def work(self, kept: Kept, read: Read) -> int:
        """Count the multiply-adds of the convolutions; see `Restorer`."""
        if self._statistics == "block":
            return padded_multiply_adds(self._width, [sum(axis) for axis in read])
        return unpadded_multiply_adds(self._width, kept)

    @torch.no_grad()
    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Restore a part of a block; see `Restorer`."""
        moved = block.to(self.device).to(memory_format=LAYOUT)
        with computing(self.device, self.precision):
            restored: Tensor = self._network(moved, keep)
        return restored.float()


class _PaddedUNet3d(nn.Module):
    """A U-Net whose normalisation takes its statistics from each block, with its halo."""

    def __init__(self, network: UNet3d) -> None:
        super().__init__()
        self._network = copy.deepcopy(network)
        use_statistics(self._network, "block")

    def forward(self, block: Tensor, keep: Keep) -> Tensor:
        restored: Tensor = self._network(block)
        return restored[:, :, keep[0], keep[1], keep[2]]
