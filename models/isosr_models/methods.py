"""The methods that can be trained, by name; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from isosr_models.architectures import (
    Architecture,
    SliceResNetArchitecture,
    SliceUNet2dArchitecture,
    UNet3dArchitecture,
)
from isosr_models.configs import (
    LEAST_PATCH,
    Degradation,
    OTCycleGANConfig,
    SelfBlurConfig,
    SelfNetConfig,
)
from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import ModelConfigError
from isosr_models.objective import Objective
from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_models.patchgan import MIN_PLANE
from isosr_models.reblurring import Reblur, kernel_reblur, slice_reblur
from isosr_models.self_blur import LEAST_CROP, SelfBlur
from isosr_models.self_net import SelfNet

Parameters = Mapping[str, Any]
"""Of a method, by name, such as those of `OTCycleGANConfig`; unknown names are errors. What is made
by ``self-blur`` needs its `Degradation` too, as ``degradation``."""


class Method(NamedTuple):
    """How the restorer of a method comes about.

    Attributes
    ----------
    create : callable
        Makes the objective from its parameters, the device, and the distance of measured planes
        along z, in voxels of the isotropic grid.
    architecture : callable
        Describes the network that restores, from the parameters.
    reblur : callable
        Makes what will blur a restored volume once more, untrained, from the parameters and the
        device; None: no network does, but a Gaussian that is told from volumes or given.
    least_crop : int
        Shortest side of a crop that can be trained on, in voxels.
    """

    create: Callable[[Parameters, torch.device, float], Objective]
    architecture: Callable[[Parameters], Architecture]
    reblur: Callable[[Parameters, torch.device], Reblur] | None
    least_crop: int


def _ot_cyclegan(parameters: Parameters, device: torch.device, _z_step: float) -> Objective:
    return OTCycleGAN(OTCycleGANConfig.model_validate(parameters), device)


def _unet(parameters: Parameters) -> UNet3dArchitecture:
    config = OTCycleGANConfig.model_validate(parameters)
    return UNet3dArchitecture(
        width=config.width,
        residual=config.start == "identity",
        bottleneck_norm=config.bottleneck_norm,
    )


def _blur_of_cyclegan(parameters: Parameters, device: torch.device) -> Reblur:
    config = OTCycleGANConfig.model_validate(parameters)
    if config.blur == "deep-linear":
        linear = DeepLinear3d(config.width, residual=config.start == "identity")
        with torch.no_grad():
            return kernel_reblur(linear.psf(), device)
    network = _unet(parameters)
    function = network.restorer(network.build(), "frozen", device, "32")
    # Of a network that is not trained it says nothing, whatever it makes of a point.
    return Reblur(function, np.ones((1, 1, 1), np.float32))


def _degradation_of_self_net(parameters: Parameters, device: torch.device) -> Reblur:
    network = _slice_resnet(parameters).build()
    downsampling = SelfNetConfig.model_validate(parameters).downsampling
    return slice_reblur(network, downsampling, device)


def _self_net(parameters: Parameters, device: torch.device, z_step: float) -> Objective:
    return SelfNet(SelfNetConfig.model_validate(parameters), device, z_step)


def _slice_resnet(parameters: Parameters) -> SliceResNetArchitecture:
    config = SelfNetConfig.model_validate(parameters)
    return SliceResNetArchitecture(
        width=config.width, blocks=config.blocks, residual=config.start == "identity"
    )


def _self_blur(parameters: Parameters, device: torch.device, z_step: float) -> Objective:
    own = dict(parameters)
    degradation = Degradation.model_validate(own.pop("degradation", None))
    return SelfBlur(SelfBlurConfig.model_validate(own), degradation, z_step, device)


def _slices(parameters: Parameters) -> Architecture:
    config = SelfBlurConfig.model_validate(parameters)
    return SliceUNet2dArchitecture(width=config.width, neighbours=config.neighbours)


_METHODS: dict[str, Method] = {
    "ot-cyclegan": Method(_ot_cyclegan, _unet, _blur_of_cyclegan, MIN_PLANE),
    "self-blur": Method(_self_blur, _slices, None, LEAST_CROP),
    "self-net": Method(_self_net, _slice_resnet, _degradation_of_self_net, LEAST_PATCH),
}


def find_method(name: str) -> Method:
    """Return a method.

    Parameters
    ----------
    name : str
        Such as ``"ot-cyclegan"``.

    Raises
    ------
    ModelConfigError
        When no method has that name.
    """
    if name not in _METHODS:
        raise ModelConfigError(f"method is {name!r}: choose one of {', '.join(_METHODS)}")
    return _METHODS[name]


def create_objective(
    name: str, parameters: Parameters, device: torch.device, z_step: float = 1.0
) -> Objective:
    """Make the networks and optimisers of a method.

    Parameters
    ----------
    name : str
        Such as ``"ot-cyclegan"``.
    parameters : mapping
        Of the method.
    device : torch.device
    z_step : float
        Distance of measured planes along z, in voxels of the isotropic grid.

    Raises
    ------
    ModelConfigError
        When no method has that name.
    pydantic.ValidationError
        When a parameter is unknown or out of range.
    """
    return find_method(name).create(parameters, device, z_step)
