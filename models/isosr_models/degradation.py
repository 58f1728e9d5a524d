"""What a microscope does along z, done to lateral planes: blur, coarse sampling, noise.

Lateral planes are noisy themselves. Noise that a blurred plane shares with the sharp one would
teach a network to keep it, and so a part of the noise that is added to the blurred plane is taken
off the sharp one, which makes the noise of the two nearly independent (Pang et al. 2021,
"Recorrupted-to-recorrupted").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_REACH = 5.0
_ALIASES = 3
# The less, the more noise the sharp planes get.
_SHARED = 0.03
_LEAST_SIGMA = 0.3


class Noise(NamedTuple):
    """A variance of noise that depends on the intensity I: ``gain I + floor``, window units."""

    gain: float
    floor: float

    def variance(self, intensity: Tensor) -> Tensor:
        """Return the variance at intensities; never below 0."""
        return (self.gain * intensity + self.floor).clamp(min=0.0)


class Pair(NamedTuple):
    """Planes as a network is given them, and as it should return them: (n, 1, length, width)."""

    blurred: Tensor
    sharp: Tensor


def degrade(
    planes: Tensor, sigma: Tensor, phase: Tensor, z_step: float, noise: Noise, gain: Tensor
) -> Pair:
    """Blur planes along their first axis and sample them as z is; see the module.

    Parameters
    ----------
    planes : Tensor, (n, length, width) float32
        Lateral planes; their first axis takes the place of z.
    sigma : Tensor, (n,) float32
        Standard deviations of the blur, in voxels.
    phase : Tensor, (n,) float32
        Where the first sample lies, in voxels: at least 0, below `z_step`.
    z_step : float
        Distance of samples, in voxels; between them the result is interpolated linearly.
    noise : Noise
        Of the planes.
    gain : Tensor, (n,) float32
        What intensities are multiplied by, before noise is added for them.

    Returns
    -------
    Pair
        Its random numbers are torch's, drawn in the memory of the processor.
    """
    sigma = _in_range(sigma, planes)
    at, sampling, scale = _acquisition(planes, sigma, phase, z_step, gain)
    count = at.shape[1]
    samples = sampling @ planes
    white = torch.randn(len(planes), 2 * count, planes.shape[2]).to(planes.device)
    added, opposite = _filtered(white, _kept_power(sigma, z_step, 2 * count))
    # What planes have themselves, after the gain, and what planes of such intensities have.
    own = scale**2 * noise.variance(samples)
    due = noise.variance(scale * samples).sqrt()
    blurred = scale * samples + due * added[:, :count]
    ratio = torch.where(due > 0, own / due, torch.zeros_like(due))
    sharp = scale * planes - sampling.transpose(1, 2) @ (ratio * opposite[:, :count])
    return Pair((_interpolation(at, planes.shape[1]) @ blurred)[:, None], sharp[:, None])


def degrade_clean(
    planes: Tensor, sigma: Tensor, phase: Tensor, z_step: float, noise: Noise, gain: Tensor
) -> Pair:
    """Blur and sample planes as `degrade` does, where they have no noise of their own.

    Parameters
    ----------
    planes, sigma, phase, z_step, gain
        See `degrade`.
    noise : Noise
        Of measured planes.

    Returns
    -------
    Pair
        The sharp planes are those given, but for the gain.
    """
    sigma = _in_range(sigma, planes)
    at, sampling, scale = _acquisition(planes, sigma, phase, z_step, gain)
    samples = sampling @ (scale * planes)
    white = torch.randn(samples.shape).to(planes.device)
    blurred = samples + noise.variance(samples).sqrt() * white
    sharp = scale * planes
    return Pair((_interpolation(at, planes.shape[1]) @ blurred)[:, None], sharp[:, None])


def reflect_ends(pair: Pair, phase: Tensor, z_step: float, share: float) -> Pair:
    """Let some planes end, as volumes do, and go on as their reflection.

    Volumes are reflected at their borders when they are restored. What is blurred holds light from
    beyond them, which its reflection does not continue.

    Parameters
    ----------
    pair : Pair
    phase, z_step
        See `degrade`: planes end along their length where they are sampled, as volumes do.
    share : float
        Of planes that end along their length, and of those that end along their width.

    Returns
    -------
    Pair
        Ends lie in the outer quarters, or where the nearest sample lies; sharp planes are reflected
        as the blurred ones are.
    """
    for axis, first, step in ((2, phase, z_step), (3, torch.zeros_like(phase), 1.0)):
        length = pair.blurred.shape[axis]
        places = torch.arange(length)
        begin, end = (at[:, None] for at in _ends(length, first, step))
        begun, ended = begin + (places - begin).abs(), end - (places - end).abs()
        at_begin = torch.rand(len(phase), 1) < 0.5
        is_reflected = torch.rand(len(phase), 1) < share
        reflected = torch.where(at_begin, begun, ended)
        # Where samples lie far apart, none need lie in the half of the axis that it ends in.
        fits = ((reflected >= 0) & (reflected < length)).all(dim=1, keepdim=True)
        index = torch.where(is_reflected & fits, reflected, places).to(pair.blurred.device)
        index = index[:, None, :, None] if axis == 2 else index[:, None, None, :]
        pair = Pair(*(side.gather(axis, index.expand_as(side)) for side in pair))
    return pair


def _ends(length: int, first: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Draw a sample in the first quarter of an axis, and one in the last, for each plane."""
    quarter, last = length // 4, length - 1
    room = max(1.0, (quarter - step) / step)
    begins, ends = (torch.rand(len(first)) * room for _ in range(2))
    begin = first + begins.floor() * step
    end = first + (((last - first) / step).floor() - ends.floor()) * step
    return begin.round().long().clamp(0, last), end.round().long().clamp(0, last)


def _in_range(sigma: Tensor, planes: Tensor) -> Tensor:
    """Return widths where the planes are, none so small that a Gaussian misses the voxels."""
    return sigma.clamp(min=_LEAST_SIGMA).to(planes.device)


def _acquisition(
    planes: Tensor, sigma: Tensor, phase: Tensor, z_step: float, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where samples lie, what weighs voxels for them, and the gain, for all planes."""
    device, length = planes.device, planes.shape[1]
    count = math.ceil((length - 1) / z_step) + 2
    at = phase.to(device)[:, None] + (torch.arange(count, device=device) - 1) * z_step
    return at, _sampling(at, sigma, length), gain.to(device)[:, None, None]


def _sampling(at: Tensor, sigma: Tensor, length: int) -> Tensor:
    """Return (n, samples, length): Gaussian means at places, of rows mirrored at their ends."""
    voxels = torch.arange(-length, 2 * length, device=at.device)
    distance = (at[:, :, None] - voxels) / sigma[:, None, None]
    weights = torch.exp(-0.5 * distance**2) * (distance.abs() < _REACH)
    weights = weights / weights.sum(dim=2, keepdim=True)
    before, within, after = torch.split(weights, length, dim=2)
    return within + before.flip(2) + after.flip(2)


def _interpolation(at: Tensor, length: int) -> Tensor:
    """Return (n, length, samples): linear interpolation from samples to voxels."""
    voxels = torch.arange(length, device=at.device)
    step = at[:, 1:2] - at[:, :1]
    distance = (voxels[None, :, None] - at[:, None, :]).abs() / step[:, :, None]
    return (1.0 - distance).clamp(min=0.0)


def _kept_power(sigma: Tensor, z_step: float, count: int) -> Tensor:
    """Return (n, frequencies): the power of white noise after blur and sampling, aliases too."""
    f = torch.fft.rfftfreq(count, device=sigma.device)
    aliases = torch.arange(-_ALIASES, _ALIASES + 1, device=sigma.device)
    frequency = (f[:, None] + aliases) / z_step
    power = torch.exp(-((2 * math.pi * sigma[:, None, None] * frequency) ** 2)) / z_step
    return power.sum(dim=2).clamp(max=1.0)


def _filtered(white: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return noise that makes up for what was lost, and what must be taken off for it."""
    lost = (1.0 - kept)[:, :, None]
    spectrum = torch.fft.rfft(white, dim=1)
    added = torch.fft.irfft(spectrum * lost.sqrt(), n=white.shape[1], dim=1)
    opposite = torch.fft.irfft(spectrum * lost.sqrt() / (lost + _SHARED), n=white.shape[1], dim=1)
    return added, opposite
