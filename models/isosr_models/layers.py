"""Layers that the networks share: instance normalisation that can be frozen, and its folding."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Statistics = Literal["block", "frozen"]


def instance_norm_3d(channels: int) -> nn.InstanceNorm3d:
    """Instance normalisation without affine parameters that tracks running statistics.

    In training mode it normalises each sample by its own statistics, as published. In evaluation
    mode it applies the running statistics, which makes the network a pure local function.

    Parameters
    ----------
    channels : int
        Number of feature channels.
    """
    return nn.InstanceNorm3d(channels, affine=False, track_running_stats=True)


def _norms(module: nn.Module) -> Iterator[nn.InstanceNorm3d]:
    for child in module.modules():
        if isinstance(child, nn.InstanceNorm3d):
            yield child


def hold_statistics(module: nn.Module, held: bool) -> None:
    """Say what a network that is trained is normalised by.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    held : bool
        True: by its running statistics, which stay as they are and are constants to the gradient.
        False: each sample by its own, which the running ones follow.
    """
    for norm in _norms(module):
        norm.train(not held)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while samples are normalised by their own.

    Parameters
    ----------
    module : torch.nn.Module
    """
    norms = list(_norms(module))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def use_statistics(module: nn.Module, statistics: Statistics) -> None:
    """Put a network into evaluation mode with the given normalisation statistics.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    statistics : {"block", "frozen"}
        ``"frozen"`` applies the running statistics; ``"block"`` normalises every input by its own,
        as in the publication, and leaves the running ones untouched.
    """
    module.eval()
    for norm in _norms(module):
        norm.train(statistics == "block")
        norm.momentum = 0.0 if statistics == "block" else 0.1


@torch.no_grad()
def calibrate(module: nn.Module, samples: Iterable[Tensor]) -> int:
    """Set the running statistics to the mean over samples, and return how many there were.

    Parameters
    ----------
    module : torch.nn.Module
        A network with instance normalisation; left in evaluation mode with frozen statistics.
    samples : iterable of Tensor, each (1, 1, z, y, x) float32
        Normalised crops, drawn like those of the training; none is drawn where there are no
        statistics to set.
    """
    if not any(True for _ in _norms(module)):
        module.eval()
        return 0
    # A copy is never compiled: each setting of the norms would be compiled anew.
    follower = copy.deepcopy(module).eval()
    for norm in _norms(follower):
        norm.train()
        # What is followed is then the last sample alone.
        norm.momentum = 1.0
    followed, statistics = list(_statistics(follower)), list(_statistics(module))
    count = 0
    for sample in samples:
        follower(sample)
        count += 1
        for mean, value in zip(statistics, followed, strict=True):
            mean.lerp_(value, 1.0 / count)
    use_statistics(module, "frozen")
    return count


def _statistics(module: nn.Module) -> Iterator[Tensor]:
    for norm in _norms(module):
        for value in (norm.running_mean, norm.running_var):
            if value is not None:
                yield value


def fold_norm(convolution: nn.Conv3d, norm: nn.InstanceNorm3d) -> nn.Conv3d:
    """Fold frozen normalisation into the convolution before it.

    ``(conv(x) - mean) / sqrt(var + eps)`` is itself a convolution with scaled weights and a shifted
    bias, so that inference skips one pass over the activations.

    Parameters
    ----------
    convolution : torch.nn.Conv3d
        The convolution whose output is normalised; not changed.
    norm : torch.nn.InstanceNorm3d
        Without affine parameters, with running statistics.

    Returns
    -------
    torch.nn.Conv3d
        A new convolution with a bias, equal to both to float rounding.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("norm has no running statistics: make it with track_running_stats=True")
    folded = nn.Conv3d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=True,
    ).to(convolution.weight.device, convolution.weight.dtype)
    scale = torch.rsqrt(variance.double() + norm.eps)
    bias = torch.zeros_like(scale) if convolution.bias is None else convolution.bias.double()
    with torch.no_grad():
        folded.weight.copy_(convolution.weight.double() * scale.view(-1, 1, 1, 1, 1))
        if folded.bias is not None:
            folded.bias.copy_((bias - mean.double()) * scale)
    return folded
