"""The moving average of a network's weights, which training lets swing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a network's weights, which follows more quickly at first.

    Parameters
    ----------
    network : torch.nn.Module
        Copied.
    decay : float
        Of the average with each update, once it has seen many.
    """

    # All at once, as a GPU waits for each count that is looked at.
    def follow(means: Sequence[Tensor], now: Sequence[Tensor], count: Tensor | int) -> None:
        seen = int(count)
        torch._foreach_lerp_(list(means), list(now), 1 - min(decay, seen / (seen + 10)))

    return AveragedModel(network, multi_avg_fn=follow)
