"""Parameters of the methods: one set for the objectives and for the settings of a training.

Nothing heavy is imported here, as the command line reads it for its help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_WIDTH = 512
MAX_BLOCKS = 64
MAX_PATCHES = 4096
MAX_DOWNSAMPLING = 100.0
LEAST_PATCH = 24
"""Smallest side of a patch in voxels that leaves the discriminators a prediction map."""
MAX_NEIGHBOURS = 4
"""A quarter of the shortest crop of self-blur, which its restored planes leave out at each end."""


class OTCycleGANConfig(BaseModel):
    """Parameters of the method; the defaults are the publication's but for `start`.

    Attributes
    ----------
    width : int
        Channels of the first layer of generator and discriminators; 64 in the publication.
    blur : {"deep-linear", "unet"}
        The generator F that blurs: a linear filter, or a second U-Net for light-sheet brains.
    start : {"identity", "random"}
        ``"identity"``: both generators start as the identity and learn what to add;
        ``"random"``: Kaiming initialisation and a sigmoid output, as published.
    cycle_weight : float
        Weight λ of the cycle-consistency loss.
    learning_rate : float
        Of Adam, for all networks.
    beta1 : float
        Of Adam: decay of the first moment. 0.5 is steadier at larger learning rates.
    planes : int
        Planes of each orientation and crop that the discriminators see in a step.
    average : float
        Decay of an exponential moving average of the generator's weights, which becomes the
        restorer: single steps of adversarial training swing. 0, as published: the last weights.
    projections : bool
        Whether D_X is shown maximum projections over a depth of 2 to 10 voxels, drawn for each
        step, in place of planes.
    shared_axial : bool
        Whether one discriminator judges both XZ and YZ planes, in D_X and in D_Y.
    bottleneck_norm : bool
        Whether the bottleneck of the U-Nets is normalised.
    gradient_checkpointing : bool
        Whether G's activations are computed again for the gradient instead of being kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=4, le=MAX_WIDTH)
    blur: Literal["deep-linear", "unet"] = "deep-linear"
    start: Literal["identity", "random"] = "identity"
    cycle_weight: float = Field(10.0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    planes: int = Field(8, ge=1)
    average: float = Field(0.0, ge=0, lt=1)
    projections: bool = False
    shared_axial: bool = False
    bottleneck_norm: bool = True
    gradient_checkpointing: bool = False


class RichardsonLucyConfig(BaseModel):
    """Parameters of the method; the PSF is a file, or a Gaussian.

    Attributes
    ----------
    psf : Path or None
        A volume with the PSF of the microscope in it: a source with one channel.
    psf_voxel_size : tuple of 3 floats or None
        Of that volume in µm, order z, y, x; None: as it says.
    axial_fwhm : float or None
        Of a Gaussian PSF along z in µm, in place of a file.
    lateral_fwhm : float
        Of a Gaussian PSF along y and x in µm; 0: nothing is undone along y and x.
    iterations : int
        Of Richardson and Lucy.
    resolution : {"lateral", "full"}
        What the result is given: ``"lateral"``: blurred again, with a Gaussian as wide along all
        axes as the PSF is along y and x; ``"full"``: as it is after the iterations, which sharpen
        y and x too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    psf: Path | None = None
    psf_voxel_size: tuple[float, float, float] | None = None
    axial_fwhm: float | None = Field(None, gt=0)
    lateral_fwhm: float = Field(0.0, ge=0)
    iterations: int = Field(10, ge=1, le=1000)
    resolution: Literal["lateral", "full"] = "lateral"


class SelfNetConfig(BaseModel):
    """Parameters of the method; the defaults are the publication's but for `start` and `noise`.

    Attributes
    ----------
    width : int
        Feature channels of DeblurNet and of both generators; 64 in the publication.
    blocks : int
        Residual blocks of each; 6 in the publication.
    critic_width : int
        Channels of the first layer of the discriminators.
    start : {"identity", "random"}
        ``"identity"``: all three networks start as the identity and learn what to add;
        ``"random"``: Kaiming initialisation, as published.
    patch : int
        Side of the patches that networks are trained on, in voxels; crops must hold them.
    patches : int
        Of lateral planes, and as many of axial ones, in a step; from any of its crops.
    downsampling : float or None
        By how much lateral patches are down-sampled before the degradation is learned; 1: not at
        all. None: as planes are measured, by their distance in lateral voxels.
    noise : bool
        Whether what the degradation has blurred gets noise like that of lateral planes, which axial
        ones have too and blurring takes away.
    cycle_weight : float
        Weight of the cycle-consistency loss.
    feedback_weight : float
        Of DeblurNet's loss in the training of the degradation; 0: the two stages go side by side.
    ssim_weight : float
        Of 1 - SSIM beside Charbonnier's loss.
    learning_rate : float
        Of Adam, for all networks.
    beta1 : float
        Of Adam: decay of the first moment.
    average : float
        Decay of an exponential moving average of DeblurNet's weights, which becomes the restorer.
        0, as published: the last weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=4, le=MAX_WIDTH)
    blocks: int = Field(6, ge=0, le=MAX_BLOCKS)
    critic_width: int = Field(64, ge=4, le=MAX_WIDTH)
    start: Literal["identity", "random"] = "identity"
    patch: int = Field(64, ge=LEAST_PATCH)
    patches: int = Field(8, ge=1, le=MAX_PATCHES)
    downsampling: float | None = Field(None, ge=1, le=MAX_DOWNSAMPLING)
    noise: bool = True
    cycle_weight: float = Field(10.0, ge=0)
    feedback_weight: float = Field(1.0, ge=0, le=1)
    ssim_weight: float = Field(1.0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    beta1: float = Field(0.5, ge=0, lt=1)
    average: float = Field(0.0, ge=0, lt=1)


class SelfBlurConfig(BaseModel):
    """Parameters of the method ``self-blur``.

    Attributes
    ----------
    width : int
        Channels of the first level of the 2D U-Net.
    neighbours : int
        Slices that it sees on each side of the one that it restores.
    planes : int
        Lateral planes of each crop that a step learns from.
    measured : float
        Share of the steps that go on to learn from planes as they were measured, to the end.
    learning_rate : float
        Of Adam; it falls to a hundredth of it in the last half of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(16, ge=1)
    neighbours: int = Field(2, ge=0, le=MAX_NEIGHBOURS)
    planes: int = Field(3, ge=1)
    measured: float = Field(0.0, ge=0, le=1)
    learning_rate: float = Field(2e-3, gt=0)


class Degradation(BaseModel):
    """What ``self-blur`` does to lateral planes: the axial blur and the noise of a volume.

    Attributes
    ----------
    square_x, square_y : float
        Of the blur that is left along z when the one along x, or y, is taken off: ``sz² - sx²`` of
        standard deviations, in voxels² of the isotropic grid.
    error : float
        Standard error of these squares.
    noise_gain, noise_floor : float
        The variance of the noise at an intensity I is ``noise_gain I + noise_floor``, where the
        intensity window is 0 and 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    square_x: float = Field(ge=0)
    square_y: float = Field(ge=0)
    error: float = Field(ge=0)
    noise_gain: float = Field(ge=0)
    noise_floor: float
