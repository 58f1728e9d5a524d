"""What a method is to the training loop: networks that get better step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from isosr_models.execution import Execution
from isosr_models.volume_network import VolumeNetwork


class Contrast(NamedTuple):
    """Standard deviations of crops, of what they were restored to, and of the difference."""

    given: float
    restored: float
    added: float


class Objective(Protocol):
    """What is trained: networks, their losses and their optimisers."""

    execution: Execution
    """How steps are executed; one process in float32 unless another is put in its place."""

    @property
    def restorer(self) -> VolumeNetwork:
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
        """Return what a model folder keeps: the restorer as ``"generator"``, and what else."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """Return all that has a state, for a checkpoint."""
        ...

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """An objective whose steps depend on how far the training has come."""

    def set_share(self, share: float) -> None:
        """Take note, before a step, of the share of the training that has been done: 0 to 1."""
        ...


class Unnormalised:
    """Base of objectives whose networks have no normalisation: there is nothing to freeze."""

    @property
    def norm_frozen(self) -> bool:
        """Whether statistics are fixed: never, as there are none; see `Objective`."""
        return False

    def freeze_norm(self, crops: Iterable[Tensor]) -> None:
        """Leave all as it is; see `Objective`."""

    def release_norm(self) -> None:
        """Leave all as it is; see `Objective`."""
