"""Lateral planes of crops that a network has restored, for another to learn from.

A lateral plane shows a layer as thick as the PSF is long along z: under a PSF 3.3 times as long as
wide, 3.3 times as much lies in it, and blurs into each other, as in an axial slice. A network that
knows such planes only leaves room for two structures where there is one. Once z is restored,
lateral planes show thin layers, as axial slices do, and still are as sharp as they were measured.
They then also differ from their neighbours as axial slices do from theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CAPACITY = 8


class RestoredPlanes(nn.Module):
    """The planes of the crops that were added last; a part of a checkpoint.

    They are kept as the bits of float16. As integers, they are not taken for statistics, which the
    processes of a training average.

    Parameters
    ----------
    neighbours : int
        Planes on each side of one that are drawn with it.
    """

    _bits: Tensor
    _added: Tensor

    def __init__(self, neighbours: int = 0) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("_bits", torch.zeros(0, 0, 0, 0, dtype=torch.int16))
        self.register_buffer("_added", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Return of how many crops there are planes to draw."""
        return min(int(self._added), len(self._bits))

    def add(self, crop: Tensor) -> None:
        """Keep the planes of a restored crop; in place of the oldest one, where there are enough.

        Parameters
        ----------
        crop : Tensor, (z, y, x) float32
            Planes are drawn from the middle half along z, where the network saw what is around.
            A quarter of its planes must be at least as many as the neighbours.
        """
        edge = len(crop) // 4 - self.neighbours
        bits = crop.detach()[edge : len(crop) - edge].half().view(torch.int16)
        if self._bits.shape[1:] != bits.shape:
            self._bits = torch.zeros(_CAPACITY, *bits.shape, dtype=torch.int16)
            self._added.zero_()
        self._bits[int(self._added) % _CAPACITY] = bits.cpu()
        self._added += 1

    def draw(self, count: int) -> Tensor:
        """Return planes by chance, between their neighbours.

        Parameters
        ----------
        count : int

        Returns
        -------
        Tensor, (count, 1 + 2 neighbours, y, x) float32
            In the memory of the processor.
        """
        crops = torch.randint(len(self), (count, 1))
        first = torch.randint(self._bits.shape[1] - 2 * self.neighbours, (count, 1))
        planes = first + torch.arange(1 + 2 * self.neighbours)
        return self._bits[crops, planes].view(torch.float16).float()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        # How large planes are is not known before the first ones.
        self._bits = torch.empty_like(state[f"{prefix}_bits"])
        super()._load_from_state_dict(state, prefix, *others)
