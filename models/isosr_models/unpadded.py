"""The U-Net as it restores: normalisation folded in, and nothing computed that is cut off again.

::

      padded, as in training            unpadded
      ┌─────────────────────┐           ┌─────────────────────┐
      │ all stages compute  │           │ encoder   ┌─────────┤
      │ all of the block    │           │     bottle│neck ┌───┤
      │ with its halo       │           │           │  decoder│
      └─────────────────────┘           └─────────────────────┘

A stage computes what the kept part of the output depends on, and no more: three fifths of the
arithmetic are the decoder's, which needs next to nothing of the halo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isosr_models.arithmetic import Kept, count_multiply_adds
from isosr_models.unet import UNet3d

Keep = tuple[slice, slice, slice]
"""The part of a block that is wanted, in voxels along z, y, x, with starts and stops."""


LAYOUT = torch.channels_last_3d
"""A third less memory and time than with channels first, measured on a CPU."""


class _Span(NamedTuple):
    """A range of positions along an axis, in voxels of a stage; zero is that of the block."""

    start: int
    stop: int

    def grown(self, margin: int) -> _Span:
        return _Span(self.start - margin, self.stop + margin)

    def halved(self) -> _Span:
        return _Span(self.start // 2, -(-self.stop // 2))

    def doubled(self) -> _Span:
        return _Span(2 * self.start, 2 * self.stop)

    def within(self, outer: _Span) -> slice:
        return slice(self.start - outer.start, self.stop - outer.start)


_Spans = tuple[_Span, ...]
"""One for each axis."""


@dataclass(frozen=True)
class _Needs:
    """What must be known for the kept part; from the last stage to the first."""

    decoder1: _Spans
    up1: _Spans
    decoder2: _Spans
    up2: _Spans
    encoder2: _Spans
    encoder1: _Spans
    block: _Spans

    @classmethod
    def of(cls, kept: _Spans) -> _Needs:
        decoder1 = tuple(span.grown(1) for span in kept)
        up1 = tuple(span.halved() for span in decoder1)
        decoder2 = tuple(span.grown(2) for span in up1)
        up2 = tuple(span.halved() for span in decoder2)
        encoder2 = tuple(span.grown(3).doubled() for span in up2)
        encoder1 = tuple(span.grown(2).doubled() for span in encoder2)
        block = tuple(span.grown(2) for span in encoder1)
        return cls(decoder1, up1, decoder2, up2, encoder2, encoder1, block)


class UnpaddedUNet3d(nn.Module):
    """A trained `UNet3d` with frozen normalisation, for restoring parts of blocks.

    Equal to the padded network on a volume of any size, to float rounding, where the part lies at
    least its receptive radius from the border of the block.

    Parameters
    ----------
    network : UNet3d
        Not changed: a copy is made. Its running statistics become part of the convolutions.
    """

    def __init__(self, network: UNet3d) -> None:
        super().__init__()
        self._network = _folded(network)

    @torch.no_grad()
    def forward(self, block: Tensor, keep: Keep) -> Tensor:
        """Restore a part of a block.

        Parameters
        ----------
        block : Tensor, (1, 1, z, y, x) float32
            Intensities with the window at 0 and 1. Its origin must lie on the network's stride.
        keep : tuple of 3 slices
            The part, at least `UNet3d.receptive_radius` voxels from all sides of the block.

        Returns
        -------
        Tensor, (1, 1, z, y, x) float32
            The part, restored.

        Raises
        ------
        ValueError
            When the part lies nearer to a border.
        """
        net = self._network
        kept = tuple(_Span(k.start, k.stop) for k in keep)
        needs = _Needs.of(kept)
        whole = tuple(_Span(0, length) for length in block.shape[2:])
        for part, span, border in zip(kept, needs.block, whole, strict=True):
            if span.start < border.start or span.stop > border.stop:
                raise ValueError(
                    f"keep must lie {UNet3d.receptive_radius} voxels from the borders of the "
                    f"block, and is {part.start}:{part.stop} of {border.stop}"
                )
        fine = net.encoder1(_cut(block, needs.block, whole).clamp(0.0, 1.0))
        coarse = net.encoder2(net.pool(fine))
        # A copy, so that the rest of the finest features is not held any longer.
        fine = _cut(fine, needs.decoder1, needs.encoder1).contiguous(memory_format=LAYOUT)
        deep = net.bottleneck(net.pool(coarse))
        coarse = _cut(coarse, needs.decoder2, needs.encoder2)
        rough = _cut(net.up2(deep), needs.decoder2, _doubled(needs.up2))
        coarse = net.decoder2(torch.cat((rough, coarse), dim=1))
        del rough, deep
        rough = _cut(net.up1(coarse), needs.decoder1, _doubled(needs.up1))
        del coarse
        fine = torch.cat((rough, fine), dim=1)
        del rough
        out: Tensor = net.head(net.decoder1(fine)).float()
        return _cut(block, kept, whole) + out if net.residual else torch.sigmoid(out)


def unpadded_multiply_adds(width: int, kept: Kept) -> int:
    """Count the multiply-adds of an `UnpaddedUNet3d` for blocks that form a grid.

    Parameters
    ----------
    width : int
        Of the network.
    kept : tuple of 3 sequences of slices
        Along each axis, the part of each block that is wanted.
    """
    # Spans need not be those of three axes: here they are those of all blocks along one.
    axes = [_outputs(_Needs.of(tuple(_Span(k.start, k.stop) for k in axis))) for axis in kept]
    lengths = ([sum(b - a for a, b in spans) for spans in axis] for axis in axes)
    return count_multiply_adds(width, list(zip(*lengths, strict=True)))


def _outputs(needs: _Needs) -> list[_Spans]:
    """Return what each convolution gives, from the first to the last."""

    def grown(spans: _Spans, margin: int) -> _Spans:
        return tuple(span.grown(margin) for span in spans)

    encoders = [grown(needs.encoder1, 1), needs.encoder1, grown(needs.encoder2, 1), needs.encoder2]
    bottleneck = [grown(needs.up2, 2), grown(needs.up2, 1), needs.up2]
    decoder2 = [_doubled(needs.up2), grown(needs.up1, 1), needs.up1]
    kept = grown(needs.decoder1, -1)
    return [*encoders, *bottleneck, *decoder2, _doubled(needs.up1), kept, kept]


def _doubled(spans: _Spans) -> _Spans:
    return tuple(span.doubled() for span in spans)


def _cut(features: Tensor, inner: _Spans, outer: _Spans) -> Tensor:
    """Cut a box out of what covers another one."""
    z, y, x = (a.within(b) for a, b in zip(inner, outer, strict=True))
    return features[:, :, z, y, x]


def _folded(network: UNet3d) -> UNet3d:
    """Return a copy with normalisation in its convolutions, and those without padding."""
    folded = network.folded()
    for module in folded.modules():
        if isinstance(module, nn.Conv3d):
            module.padding = (0, 0, 0)
    return folded
