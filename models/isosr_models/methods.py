"""The methods that can be trained, by name; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isosr_models.errors import ModelConfigError
from isosr_models.execution import Execution
from isosr_models.ot_cyclegan import Contrast, OTCycleGAN, OTCycleGANConfig
from isosr_models.unet import UNet3d


class Objective(Protocol):
    """What is trained: networks, their losses and their optimisers."""

    execution: Execution
    """How steps are executed; one process in float32 unless another is put in its place."""

    @property
    def restorer(self) -> UNet3d:
        """The network that restores, as it is now."""
        ...

    def step(self, crops: Tensor) -> dict[str, float]:
        """Improve on a batch of crops, (n, 1, z, y, x) float32; return the losses by name."""
        ...

    def contrast(self) -> Contrast:
        """Return the contrast of the last crops, before and after."""
        ...

    @property
    def norm_frozen(self) -> bool:
        """Whether `freeze_norm` has been called, also before the checkpoint that was loaded."""
        ...

    def freeze_norm(self, crops: Iterable[Tensor]) -> None:
        """Calibrate the restorer on crops, (1, 1, z, y, x); train it with these statistics."""
        ...

    def release_norm(self) -> None:
        """Train it with the statistics of each crop again."""
        ...

    def networks(self) -> dict[str, nn.Module]:
        """Return what a model folder keeps, ``"generator"`` among it."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """Return all that has a state, for a checkpoint."""
        ...

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        ...


def _ot_cyclegan(parameters: Mapping[str, Any], device: torch.device) -> Objective:
    return OTCycleGAN(OTCycleGANConfig.model_validate(parameters), device)


_OBJECTIVES: dict[str, Callable[[Mapping[str, Any], torch.device], Objective]] = {
    "ot-cyclegan": _ot_cyclegan,
}


def create_objective(method: str, parameters: Mapping[str, Any], device: torch.device) -> Objective:
    """Make the networks and optimisers of a method.

    Parameters
    ----------
    method : str
        Such as ``"ot-cyclegan"``.
    parameters : mapping
        Of the method, such as those of `OTCycleGANConfig`; unknown names are errors.
    device : torch.device

    Raises
    ------
    ModelConfigError
        When no method has that name.
    pydantic.ValidationError
        When a parameter is unknown or out of range.
    """
    if method not in _OBJECTIVES:
        raise ModelConfigError(f"method is {method!r}: choose one of {', '.join(_OBJECTIVES)}")
    return _OBJECTIVES[method](parameters, device)
