"""Lateral planes of crops that a network has restored, for it to learn from.

A lateral plane shows a layer as thick as the PSF is long along z: under a PSF 3.3 times as long as
wide, 3.3 times as much lies in it, and blurs into each other, as in an axial slice. A network that
knows such planes only leaves room for two structures where there is one. Once z is restored,
lateral planes show thin layers, as axial slices do, and still are as sharp as they were measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CAPACITY = 256
_OF_A_CROP = 16


class RestoredPlanes(nn.Module):
    """The planes that were added last; a part of a checkpoint.

    They are kept as the bits of float16. As integers, they are not taken for statistics, which the
    processes of a training average.
    """

    _bits: Tensor
    _added: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_bits", torch.zeros(0, 0, 0, dtype=torch.int16))
        self.register_buffer("_added", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Return how many there are to draw from."""
        return min(int(self._added), len(self._bits))

    def add(self, crop: Tensor) -> None:
        """Keep some planes of a restored crop; in place of the oldest ones, where all are there.

        Parameters
        ----------
        crop : Tensor, (z, y, x) float32
            Planes are drawn from the middle half along z, where the network saw what is around.
        """
        depth = len(crop)
        middle = depth // 4 + torch.randperm(depth - depth // 2)[:_OF_A_CROP]
        bits = crop.detach()[middle].half().view(torch.int16)
        if self._bits.shape[1:] != bits.shape[1:]:
            self._bits = torch.zeros(_CAPACITY, *bits.shape[1:], dtype=torch.int16)
            self._added.zero_()
        places = (int(self._added) + torch.arange(len(bits))) % _CAPACITY
        self._bits[places] = bits.cpu()
        self._added += len(bits)

    def draw(self, count: int) -> Tensor:
        """Return planes by chance, (count, y, x) float32, in the memory of the processor."""
        return self._bits[torch.randint(len(self), (count,))].view(torch.float16).float()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        # How large planes are is not known before the first ones.
        self._bits = torch.empty_like(state[f"{prefix}_bits"])
        super()._load_from_state_dict(state, prefix, *others)
