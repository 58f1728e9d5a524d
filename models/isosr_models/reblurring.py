"""What a model knows of the blur, as a function that blurs a restored volume once more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isosr_models.architectures import (
    RichardsonLucyArchitecture,
    SliceResNetArchitecture,
    UNet3dArchitecture,
)
from isosr_models.arithmetic import Kept, Read
from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import ModelFormatError
from isosr_models.model_folder import load_blur, load_weights, read_description, tensors_under
from isosr_models.psf import learned_blur
from isosr_models.restorers import Lengths, LocalFunction, NetworkRestorer
from isosr_models.slices import SliceNetwork, SliceRestorer
from isosr_models.unpadded import Keep

_LOADED = 150 * 2**20
_BYTES_PER_VOXEL = 28
"""Of a convolution by FFT: the block, its spectrum of complex numbers, and the product."""

_MULTIPLY_ADDS = 2
"""For each value and doubling of the length: there and back, of real numbers."""

_NOTHING = 1e-4
"""Power of the target's transfer function below which nothing is left to be blurred."""

_BACKGROUND = 0.1
_FAINT = 0.02


class KernelBlur:
    """A convolution, by FFT along the axes along which its kernel has a length.

    Parameters
    ----------
    kernel : Tensor, (z, y, x)
        On the isotropic grid, of odd lengths, with its centre in the middle.
    device : torch.device
    """

    normalised = True
    saturates = False
    stride = 1

    def __init__(self, kernel: Tensor, device: torch.device) -> None:
        self.device = device
        self._kernel = kernel.to(device, torch.float32)
        self._radii = [n // 2 for n in kernel.shape]
        self._axes = [axis for axis, n in enumerate(kernel.shape) if n > 1]
        self.halo = max(self._radii)

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return what the block and its spectrum take; see `LocalFunction`."""
        computed = math.prod(k + 2 * r for k, r in zip(kept, self._radii, strict=True))
        return _LOADED + 4 * math.prod(read) + _BYTES_PER_VOXEL * computed

    def work(self, kept: Kept, read: Read) -> int:
        """Count the multiply-adds of the transforms, about; see `LocalFunction`."""
        margins = zip(kept, self._radii, strict=True)
        computed = [[part.stop - part.start + 2 * r for part in axis] for axis, r in margins]
        # Each voxel is transformed along all axes of the kernel, and multiplied.
        doublings = sum(math.log2(max(computed[axis])) for axis in self._axes)
        return int((1 + _MULTIPLY_ADDS * doublings) * math.prod(map(sum, computed)))

    @torch.no_grad()
    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Blur a part of a block; see `LocalFunction`."""
        pairs = list(zip(keep, self._radii, strict=True))
        z, y, x = (slice(part.start - r, part.stop + r) for part, r in pairs)
        part = block[0, 0, z, y, x].to(self.device)
        if not self._axes:
            return (part * self._kernel)[None, None]
        # What wraps around falls on the margin, which is cut off.
        lengths = [part.shape[axis] for axis in self._axes]
        spectrum = torch.fft.rfftn(part, s=lengths, dim=self._axes)
        spectrum *= torch.fft.rfftn(self._kernel, s=lengths, dim=self._axes)
        blurred: Tensor = torch.fft.irfftn(spectrum, s=lengths, dim=self._axes)
        for axis, radius in enumerate(self._radii):
            kept = keep[axis].stop - keep[axis].start
            blurred = blurred.narrow(axis, 2 * radius, kept)
        return blurred[None, None]


@dataclass(frozen=True)
class Reblur:
    """A blur, and what must be known to use it.

    Parameters
    ----------
    function : LocalFunction
        From a restored volume, with the intensity window at 0 and 1, to a blurred one.
    response : ndarray, (z, y, x) float32
        What it makes of a point, or about that, in the middle; odd lengths.
    coarse : bool
        Whether it expects planes at the distance of measured ones, with the planes between them
        interpolated, as the degradation of Self-Net does.
    """

    function: LocalFunction
    response: NDArray[np.float32]
    coarse: bool = False

    def beyond(self, axis: int) -> NDArray[np.float64]:
        """Return the share of light that comes from further away along an axis, on one side.

        Parameters
        ----------
        axis : int
            0, 1, 2 for z, y, x.

        Returns
        -------
        ndarray, (n,) float64
            Element d: from more than d voxels away. It falls, and its last element is 0.
        """
        weights = np.abs(self.response.astype(np.float64))
        weights[weights < _FAINT * weights.max()] = 0.0
        profile = weights.sum(axis=tuple(a for a in range(3) if a != axis))
        middle = len(profile) // 2
        half = (profile + profile[::-1])[middle:] / 2 / profile.sum()
        return np.append(half[::-1].cumsum()[::-1][1:], 0.0)


def load_reblur(folder: Path, device: torch.device) -> Reblur:
    """Load the blur of a model folder.

    Parameters
    ----------
    folder : Path
        Written by `isosr_models.model_folder.save_model`.
    device : torch.device

    Returns
    -------
    Reblur
        F of the OT-CycleGAN, the degradation of Self-Net, or of a deconvolution what its PSF adds
        to the resolution that it aims at.

    Raises
    ------
    ModelFormatError
        When the folder is no whole model, or its weights hold no blur.
    """
    description = read_description(folder)
    network = description.network
    if isinstance(network, RichardsonLucyArchitecture):
        weights = tensors_under("generator.", load_weights(folder, description))
        return kernel_reblur(residual_kernel(weights["psf"], weights["target"]), device)
    if isinstance(network, UNet3dArchitecture):
        blur = load_blur(folder)
        if isinstance(blur, DeepLinear3d):
            with torch.no_grad():
                return kernel_reblur(blur.psf(), device)
        function = NetworkRestorer(blur, "frozen", device)
        return Reblur(function, learned_blur(folder).kernel)
    if isinstance(network, SliceResNetArchitecture):
        return _slice_reblur(folder, network, device)
    raise ModelFormatError(f"{folder}: the weights of a {network} hold no blur")


def kernel_reblur(kernel: Tensor, device: torch.device) -> Reblur:
    """Return the blur of a kernel.

    Parameters
    ----------
    kernel : Tensor, (z, y, x)
        Of odd lengths, with its centre in the middle.
    device : torch.device
    """
    return Reblur(KernelBlur(kernel, device), kernel.cpu().float().numpy())


def residual_kernel(psf: Tensor, target: Tensor) -> Tensor:
    """Return what turns a volume at the resolution of a target into one that a PSF has blurred.

    The quotient of both transfer functions, after Wiener: nothing where the target leaves nothing.

    Parameters
    ----------
    psf, target : Tensor, (z, y, x)
        Of odd lengths, with their centres in the middle; with a sum of 1.

    Returns
    -------
    Tensor, (z, y, x) float32
        With a sum of 1; as long along each axis as both together, or 1 where both are.
    """
    if target.numel() == 1:
        return psf.float()
    shape = [n + 2 * (m - 1) for n, m in zip(psf.shape, target.shape, strict=True)]
    own, aimed = (_transfer(kernel, shape) for kernel in (psf, target))
    quotient = own * aimed.conj() / (aimed.abs() ** 2 + _NOTHING)
    kernel: Tensor = torch.fft.fftshift(torch.fft.ifftn(quotient).real)
    return kernel.div(kernel.sum()).float()


def _transfer(kernel: Tensor, shape: list[int]) -> Tensor:
    padded = torch.zeros(shape, dtype=torch.float64)
    padded[tuple(slice(0, n) for n in kernel.shape)] = kernel.double()
    centred = torch.roll(padded, [-(n // 2) for n in kernel.shape], dims=(0, 1, 2))
    spectrum: Tensor = torch.fft.fftn(centred)
    return spectrum


def _slice_reblur(folder: Path, network: SliceResNetArchitecture, device: torch.device) -> Reblur:
    description = read_description(folder)
    state = tensors_under("blur.", load_weights(folder, description))
    if not state:
        raise ModelFormatError(f"{folder}: its weights hold no blur")
    slices = network.build()
    try:
        slices.plane.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFormatError(
            f"{folder}: its weights hold a blur that this program does not know: {error}"
        ) from error
    run = description.training.get("run")
    downsampling = run.get("downsampling") if isinstance(run, dict) else None
    return slice_reblur(slices, downsampling, device)


def slice_reblur(network: SliceNetwork, downsampling: float | None, device: torch.device) -> Reblur:
    """Return the blur that is the degradation of Self-Net.

    Parameters
    ----------
    network : SliceNetwork
    downsampling : float or None
        With which it was trained; None: as planes are measured.
    device : torch.device
    """
    function = SliceRestorer(network, device)
    return Reblur(function, _column(function), coarse=downsampling != 1)


def _column(function: SliceRestorer) -> NDArray[np.float32]:
    """Return what is made of a bright point on a dark background, along z: (z, 1, 1)."""
    halo = function.halo
    side = 2 * halo + 1
    flat = torch.full((1, 1, side + 2 * halo, side, side), _BACKGROUND)
    point = flat.clone()
    point[0, 0, 2 * halo, halo, halo] = 1.0
    middle = slice(halo, halo + 1)
    keep = (slice(halo, halo + side), middle, middle)
    response = (function(point, keep) - function(flat, keep))[0, 0]
    found: NDArray[np.float32] = response.cpu().numpy()
    return found
