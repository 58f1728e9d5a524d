"""The moving average of a network's weights, which adversarial training lets swing."""

from __future__ import annotations

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

    def follow(mean: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
        return mean.lerp(now, 1 - min(decay, int(count) / (int(count) + 10)))

    return AveragedModel(network, avg_fn=follow)
