"""Descriptions of the networks that restore: what a model folder says of its weights."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from isosr_models.configs import MAX_NEIGHBOURS
from isosr_models.errors import ModelFormatError
from isosr_models.layers import Statistics
from isosr_models.precision import Precision
from isosr_models.resnet import ResNet2d, radius_of
from isosr_models.restorers import Lengths, NetworkRestorer, Restorer
from isosr_models.richardson_lucy import RichardsonLucy, RichardsonLucyRestorer
from isosr_models.slices import SliceNetwork, SliceRestorer
from isosr_models.unet import UNet3d
from isosr_models.unet2d import UNet2d
from isosr_models.volume_network import VolumeNetwork


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UNet3dArchitecture(_Described):
    """A `UNet3d`.

    Attributes
    ----------
    width : int
        Feature channels of its first level.
    residual : bool
        Whether it adds to its input.
    bottleneck_norm : bool
        Whether its bottleneck is normalised; it is where nothing is said.
    """

    kind: Literal["unet3d"] = "unet3d"
    width: int = Field(ge=1)
    residual: bool
    bottleneck_norm: bool = True

    def __str__(self) -> str:
        """Return what it is called, such as in a plan."""
        return f"3D U-Net of width {self.width}"

    @property
    def stride(self) -> int:
        """See `VolumeNetwork`."""
        return int(UNet3d.stride)

    @property
    def receptive_radius(self) -> int:
        """See `VolumeNetwork`."""
        return int(UNet3d.receptive_radius)

    def build(self) -> UNet3d:
        """Make the network, untrained."""
        return UNet3d(self.width, residual=self.residual, bottleneck_norm=self.bottleneck_norm)

    def restorer(
        self,
        network: VolumeNetwork,
        statistics: Statistics,
        device: torch.device,
        precision: Precision,
    ) -> Restorer:
        """Make a trained network ready to run; see `NetworkRestorer`."""
        assert isinstance(network, UNet3d)  # noqa: S101 - what build returned
        return NetworkRestorer(network, statistics, device, precision)


class SliceUNet2dArchitecture(_Described):
    """A `SliceNetwork` of a `UNet2d`.

    Attributes
    ----------
    width : int
        Feature channels of its first level.
    neighbours : int
        Slices that it sees on each side of the one that it restores.
    """

    kind: Literal["slice-unet2d"] = "slice-unet2d"
    width: int = Field(ge=1)
    neighbours: int = Field(0, ge=0, le=MAX_NEIGHBOURS)

    def __str__(self) -> str:
        """Return what it is called, such as in a plan."""
        seen = f", {2 * self.neighbours} neighbours each" if self.neighbours else ""
        return f"2D U-Net of width {self.width} on XZ and YZ slices{seen}"

    @property
    def stride(self) -> int:
        """See `VolumeNetwork`."""
        return UNet2d.stride

    @property
    def receptive_radius(self) -> int:
        """See `VolumeNetwork`."""
        return UNet2d.receptive_radius

    def build(self) -> SliceNetwork:
        """Make the network, untrained."""
        return SliceNetwork(UNet2d(self.width, self.neighbours))

    def restorer(
        self,
        network: VolumeNetwork,
        statistics: Statistics,
        device: torch.device,
        precision: Precision,
    ) -> Restorer:
        """Make a trained network ready to run; it has no statistics. See `SliceRestorer`."""
        assert isinstance(network, SliceNetwork)  # noqa: S101 - what build returned
        return SliceRestorer(network, device, precision)


class RichardsonLucyArchitecture(_Described):
    """A `RichardsonLucy`: no network, but what stands in its place.

    Attributes
    ----------
    psf, target : tuple of 3 ints
        Lengths of the kernels along z, y, x, in voxels.
    iterations : int
    reach : tuple of 3 ints
        How far voxels have an influence along z, y, x.
    """

    kind: Literal["richardson-lucy"] = "richardson-lucy"
    psf: Lengths
    target: Lengths
    iterations: int = Field(ge=1)
    reach: Lengths

    def __str__(self) -> str:
        """Return what it is called, such as in a plan."""
        z, y, x = self.psf
        return f"Richardson-Lucy, {self.iterations} iterations, a PSF of {z} × {y} × {x} voxels"

    @property
    def stride(self) -> int:
        """See `VolumeNetwork`."""
        return int(RichardsonLucy.stride)

    @property
    def receptive_radius(self) -> int:
        """See `VolumeNetwork`."""
        return max(self.reach)

    def build(self) -> RichardsonLucy:
        """Make one with flat kernels of these lengths."""
        flat = torch.ones(self.psf), torch.ones(self.target)
        return RichardsonLucy(*flat, self.iterations, self.reach)

    def restorer(
        self,
        network: VolumeNetwork,
        statistics: Statistics,
        device: torch.device,
        precision: Precision,
    ) -> Restorer:
        """Make it ready to run; it computes in float32, whatever the precision asked for."""
        assert isinstance(network, RichardsonLucy)  # noqa: S101 - what build returned
        return RichardsonLucyRestorer(network, device)


class SliceResNetArchitecture(_Described):
    """A `ResNet2d` on all XZ and YZ slices.

    Attributes
    ----------
    width : int
        Its feature channels.
    blocks : int
        Its residual blocks.
    residual : bool
        Whether it adds to its input.
    """

    kind: Literal["slice-resnet"] = "slice-resnet"
    width: int = Field(ge=1)
    blocks: int = Field(ge=0)
    residual: bool

    def __str__(self) -> str:
        """Return what it is called, such as in a plan."""
        blocks = "1 block" if self.blocks == 1 else f"{self.blocks} blocks"
        return f"2D ResNet of width {self.width} with {blocks} on XZ and YZ slices"

    @property
    def stride(self) -> int:
        """See `VolumeNetwork`."""
        return int(ResNet2d.stride)

    @property
    def receptive_radius(self) -> int:
        """See `VolumeNetwork`."""
        return radius_of(self.blocks)

    def build(self) -> SliceNetwork:
        """Make the network, untrained."""
        return SliceNetwork(ResNet2d(self.width, self.blocks, residual=self.residual))

    def restorer(
        self,
        network: VolumeNetwork,
        statistics: Statistics,
        device: torch.device,
        precision: Precision,
    ) -> Restorer:
        """Make a trained network ready to run; there are no statistics."""
        assert isinstance(network, SliceNetwork)  # noqa: S101 - what build returned
        return SliceRestorer(network, device, precision)


Architecture = Annotated[
    UNet3dArchitecture
    | SliceResNetArchitecture
    | SliceUNet2dArchitecture
    | RichardsonLucyArchitecture,
    Field(discriminator="kind"),
]
"""What ``model.json`` says under ``network``."""


def describe(network: nn.Module) -> Architecture:
    """Return what a network can be built again from.

    Parameters
    ----------
    network : Module
        A `VolumeNetwork`.

    Raises
    ------
    ModelFormatError
        When no description is known of its kind.
    """
    if isinstance(network, UNet3d):
        return UNet3dArchitecture(
            width=network.width,
            residual=network.residual,
            bottleneck_norm=network.bottleneck_norm,
        )
    if isinstance(network, RichardsonLucy):
        z, y, x = network.psf.shape
        depth, height, width = network.target.shape
        return RichardsonLucyArchitecture(
            psf=(z, y, x),
            target=(depth, height, width),
            iterations=network.iterations,
            reach=network.reach,
        )
    is_sliced = isinstance(network, SliceNetwork)
    plane = network.plane if isinstance(network, SliceNetwork) else network
    if is_sliced and isinstance(plane, UNet2d):
        return SliceUNet2dArchitecture(width=plane.features, neighbours=plane.neighbours)
    if is_sliced and isinstance(plane, ResNet2d):
        return SliceResNetArchitecture(
            width=plane.width, blocks=plane.blocks, residual=plane.residual
        )
    raise ModelFormatError(
        f"generator is a {type(plane).__name__}, and a model folder holds a UNet3d, a "
        "RichardsonLucy, or a SliceNetwork of a ResNet2d or a UNet2d"
    )
