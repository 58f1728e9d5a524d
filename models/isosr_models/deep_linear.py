"""The deep linear generator: the blur that turns an isotropic volume into the measured one."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional

from isosr_models.errors import ModelConfigError

_KERNELS = (7, 5, 3, 1, 1, 1)
RADIUS = sum(kernel // 2 for kernel in _KERNELS)
"""Half the side of the one kernel that all layers amount to: 6 voxels, a kernel of 13³."""


class DeepLinear3d(nn.Module):
    """Six convolutions without bias or activation: one learned linear filter, a PSF.

    As all layers are linear, they equal one convolution with a kernel of 13³ voxels. It is composed
    from the weights and applied by FFT, which keeps the implicit regularisation of the deep form
    and costs a fraction of its time and memory (Park et al. 2022, Methods: kernel estimation by a
    deep linear network).

    Parameters
    ----------
    width : int
        Channels of the first three layers; 64 in the publication (647,120 parameters).
    residual : bool
        True: the filter is a delta plus the learned part, which starts at zero.

    Raises
    ------
    ModelConfigError
        When `width` is below 4, since the fifth layer has a quarter of it.
    """

    def __init__(self, width: int = 64, *, residual: bool = False) -> None:
        super().__init__()
        if width < 4:
            raise ModelConfigError(f"width is {width}: the deep linear generator needs at least 4")
        self.residual = residual
        widths = (1, width, width, width, width // 2, width // 4, 1)
        self.layers = nn.Sequential(
            *(
                nn.Conv3d(channels, widths[i + 1], kernel, padding=kernel // 2, bias=False)
                for i, (channels, kernel) in enumerate(zip(widths, _KERNELS, strict=False))
            )
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        if residual:
            last = self.layers[-1]
            if isinstance(last, nn.Conv3d):
                nn.init.zeros_(last.weight)

    def psf(self) -> Tensor:
        """Return the filter's response to a point, (13, 13, 13) float32, differentiable."""
        side = 2 * RADIUS + 1
        point = next(self.parameters()).new_zeros((1, 1, side, side, side))
        point[..., RADIUS, RADIUS, RADIUS] = 1.0
        return self.layered(point)[0, 0]

    def layered(self, volume: Tensor) -> Tensor:
        """Apply the layers one by one, as published; equals `forward` away from the border."""
        out: Tensor = self.layers(volume)
        return volume + out if self.residual else out

    def forward(self, volume: Tensor) -> Tensor:
        """Blur a volume with the composed kernel, in the Fourier domain.

        Parameters
        ----------
        volume : Tensor, (n, 1, z, y, x) float32
            Continued beyond its border by its outermost voxels, so that the blur darkens no edge.

        Returns
        -------
        Tensor, same shape
        """
        # A Fourier transform has no bfloat16.
        with torch.autocast(volume.device.type, enabled=False):
            return self._filtered(volume)

    def _filtered(self, volume: Tensor) -> Tensor:
        psf = self.psf()
        padded = functional.pad(volume.to(psf.dtype), (RADIUS,) * 6, mode="replicate")
        lengths = [next_fast_len(length, real=True) for length in padded.shape[2:]]
        spectrum = torch.fft.rfftn(padded, s=lengths, dim=(2, 3, 4))
        transfer = torch.fft.rfftn(psf, s=lengths)
        blurred: Tensor = torch.fft.irfftn(spectrum * transfer, s=lengths, dim=(2, 3, 4))
        z, y, x = volume.shape[2:]
        # The response starts at index 0, so the first RADIUS voxels on each side are the padding's
        # and the next RADIUS are the shift of the kernel's centre.
        begin = 2 * RADIUS
        return blurred[..., begin : begin + z, begin : begin + y, begin : begin + x]
