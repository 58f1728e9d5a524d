"""Richardson-Lucy deconvolution: the classical way back from a known PSF, with nothing learned."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from isosr_models.arithmetic import Kept, Read
from isosr_models.errors import ModelConfigError
from isosr_models.restorers import Lengths
from isosr_models.unpadded import Keep
from isosr_models.volume_network import VolumeNetwork

_NOTHING = 1e-5
"""Of the intensity window: what is darker is not divided by."""

_BEYOND = 1e-5
"""Share of the influence of voxels that may lie beyond the reach."""

_LOADED = 150 * 2**20
_BYTES_PER_VOXEL = 42
"""Measured for kernels of 1 and of 3 axes and blocks of 64 to 200 on a CPU."""

_TRANSFORMS = 4
"""In an iteration: there and back, for the PSF and for its mirror image."""

_MULTIPLY_ADDS = 2.5
"""Of a transform of real numbers, for a voxel and each doubling of a length."""


class RichardsonLucy(VolumeNetwork):
    """Iterations of Richardson (1972) and Lucy (1974), and the resolution that is aimed at.

    ``x ← x · Hᵀ(y / H x)``, begun with ``x = y``, finds the non-negative volume that, blurred by
    the PSF *H*, explains what was measured best if its noise is that of photons. What is given back
    is ``T x``: *x* at the resolution of *T*.

    Parameters
    ----------
    psf : Tensor, (z, y, x)
        On the grid of the volume, of odd lengths, with its centre in the middle; not negative.
    target : Tensor, (z, y, x)
        *T*, likewise; a single voxel of 1 leaves *x* as it is.
    iterations : int
        1 or more.
    reach : tuple of 3 ints, optional
        Where it is known already.

    Attributes
    ----------
    reach : tuple of 3 ints
        Along z, y, x: what lies further away changes an output voxel by less than 1e-5 of the
        window. See `reach_of`.

    Raises
    ------
    ModelConfigError
        When a kernel has an even length, values that are negative or not finite, or no mass.
    """

    stride = 1

    psf: Tensor
    target: Tensor

    def __init__(
        self, psf: Tensor, target: Tensor, iterations: int, reach: Lengths | None = None
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.register_buffer("psf", _checked("psf", psf))
        self.register_buffer("target", _checked("target", target))
        self.reach = reach or reach_of(self.psf, self.target, iterations)
        self.receptive_radius = max(self.reach)

    def forward(self, volume: Tensor) -> Tensor:
        """Deconvolve volumes.

        Parameters
        ----------
        volume : Tensor, (n, 1, z, y, x) float32
            With the background at 0; what is below counts as 0. Beyond its border it goes on as its
            outermost voxels.

        Returns
        -------
        Tensor, same shape
        """
        # A Fourier transform has no bfloat16.
        with torch.autocast(volume.device.type, enabled=False):
            return torch.stack([self._restored(one[0].float())[None] for one in volume])

    def _restored(self, volume: Tensor) -> Tensor:
        measured = volume.clamp(min=0)
        blur = _Filter(self.psf, measured)
        estimate = measured.clone()
        for _ in range(self.iterations):
            ratio = measured / blur(estimate).clamp_(min=0).add_(_NOTHING)
            estimate *= blur.transposed(ratio).clamp_(min=0)
            del ratio
        del blur, measured
        # Transforms leave less than nothing where there is nothing.
        return _Filter(self.target, estimate)(estimate).clamp_(min=0)


class RichardsonLucyRestorer:
    """Richardson-Lucy deconvolution, on a device, of as much of a block as is wanted.

    Parameters
    ----------
    network : RichardsonLucy
    device : torch.device
    """

    normalised = True
    saturates = False
    stride = 1

    def __init__(self, network: RichardsonLucy, device: torch.device) -> None:
        self.halo, self.device = network.receptive_radius, device
        self._network = network.to(device)
        kernels = network.psf.shape, network.target.shape
        self._radii = tuple(max(a, b) // 2 for a, b in zip(*kernels, strict=True))
        self._reach = network.reach

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return what the block takes, and the volumes of an iteration; see `Restorer`."""
        margins = zip(kept, read, self._reach, self._radii, strict=True)
        computed = math.prod(min(k + 2 * reach, n) + 2 * r for k, n, reach, r in margins)
        return _LOADED + 4 * math.prod(read) + _BYTES_PER_VOXEL * computed

    @property
    def least_work(self) -> float:
        """Multiply-adds of the transforms for a voxel; see `Restorer`."""
        # Of a block about as long as its halos, whatever it is: lengths count by their logarithms.
        margins = zip(self._radii, self._reach, strict=True)
        doublings = sum(math.log2(3 * reach + 2 * r) for r, reach in margins if r)
        return _TRANSFORMS * _MULTIPLY_ADDS * doublings * self._network.iterations

    def work(self, kept: Kept, read: Read) -> int:
        """Count the multiply-adds of the transforms, about; see `Restorer`."""
        lengths = []
        for axis, (radius, reach) in enumerate(zip(self._radii, self._reach, strict=True)):
            pairs = zip(kept[axis], read[axis], strict=True)
            needed = (min(p.stop - p.start + 2 * reach, n) + 2 * radius for p, n in pairs)
            lengths.append(sum(needed))
        return int(self.least_work * math.prod(lengths))

    @torch.no_grad()
    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Restore a part of a block; see `Restorer`."""
        # The halo is as long along all axes, and the PSF is not.
        pairs = list(zip(keep, self._reach, block.shape[2:], strict=True))
        begins = [max(part.start - reach, 0) for part, reach, _n in pairs]
        ends = [min(part.stop + reach, n) for part, reach, n in pairs]
        needed = tuple(slice(a, b) for a, b in zip(begins, ends, strict=True))
        restored: Tensor = self._network(block[:, :, *needed].to(self.device))
        z, y, x = (slice(k.start - a, k.stop - a) for k, a in zip(keep, begins, strict=True))
        return restored[:, :, z, y, x]


def reach_of(psf: Tensor, target: Tensor, iterations: int) -> Lengths:
    """Return how far voxels have an influence, along z, y, x.

    Each iteration uses the PSF twice, so that nothing beyond ``2 · iterations`` times its radius
    counts at all. Nearly all influence is much nearer: near a flat volume, iterations are
    polynomials of ``HᵀH``, whose widest term is its power of as many iterations. The reach is that
    which leaves 1e-5 of that power outside (for a Gaussian 4.4 standard deviations, times the root
    of ``2 · iterations``), and the radius of the target.

    Parameters
    ----------
    psf, target : Tensor, (z, y, x)
        See `RichardsonLucy`.
    iterations : int
    """
    z, y, x = (
        _reach(psf.double().sum(dim=[a for a in range(3) if a != axis]), iterations)
        + target.shape[axis] // 2
        for axis in range(3)
    )
    return z, y, x


def _reach(profile: Tensor, iterations: int) -> int:
    if len(profile) == 1:
        return 0
    furthest = iterations * (len(profile) - 1)
    length = next_fast_len(2 * furthest + 1, real=True)
    spectrum = np.abs(np.fft.rfft(profile.cpu().numpy(), length)) ** (2 * iterations)
    influence = np.fft.irfft(spectrum, length)[: furthest + 1].clip(min=0)
    # On both sides, of what lies further away than each distance.
    beyond = 2 * (influence[::-1].cumsum()[::-1] - influence)
    return int(np.argmax(beyond < _BEYOND * (beyond[0] + influence[0])))


class _Filter:
    """A convolution by FFT with a kernel, for volumes of one shape that go on beyond their border.

    Parameters
    ----------
    kernel : Tensor, (z, y, x)
    like : Tensor, (z, y, x)
        Of the shape and on the device of the volumes.
    """

    def __init__(self, kernel: Tensor, like: Tensor) -> None:
        self._shape = like.shape
        self._radii = [n // 2 for n in kernel.shape]
        self._axes = [axis for axis, n in enumerate(kernel.shape) if n > 1]
        self._lengths = [
            next_fast_len(like.shape[axis] + 2 * self._radii[axis], real=True)
            for axis in self._axes
        ]
        self._spectrum = self._transformed(kernel.to(like)) if self._axes else kernel.to(like)

    def __call__(self, volume: Tensor) -> Tensor:
        """Convolve."""
        # Half the kernel's length for the padding, and half for its centre.
        return self._filtered(volume, self._spectrum, 2)

    def transposed(self, volume: Tensor) -> Tensor:
        """Convolve with the mirrored kernel."""
        return self._filtered(volume, self._spectrum.conj(), 0)

    def _filtered(self, volume: Tensor, spectrum: Tensor, shift: int) -> Tensor:
        if not self._axes:
            return volume * spectrum
        padding = [r for radius in reversed(self._radii) for r in (radius, radius)]
        padded = functional.pad(volume[None, None], padding, mode="replicate")[0, 0]
        product = self._transformed(padded)
        del padded
        product *= spectrum
        result: Tensor = torch.fft.irfftn(product, s=self._lengths, dim=self._axes)
        for axis in self._axes:
            result = result.narrow(axis, shift * self._radii[axis], self._shape[axis])
        return result

    def _transformed(self, values: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(values, s=self._lengths, dim=self._axes)
        return spectrum


def _checked(name: str, kernel: Tensor) -> Tensor:
    """Return a kernel as float32 with a sum of 1."""
    if kernel.ndim != 3 or any(n % 2 == 0 for n in kernel.shape):
        raise ModelConfigError(
            f"{name} has the shape {tuple(kernel.shape)}, and must have three axes of odd lengths, "
            "with its centre in the middle"
        )
    total = float(kernel.sum())
    if not (math.isfinite(total) and total > 0 and float(kernel.min()) >= 0):
        raise ModelConfigError(
            f"{name} has the sum {total:g} and the least value {float(kernel.min()):g}, and must "
            "be finite and positive: give a PSF without its background"
        )
    return (kernel.double() / total).float().contiguous()
