"""How much a U-Net computes: the multiply-adds of its convolutions, all else being next to nothing.

Blocks that form a grid are counted together: the work of a convolution is a product of lengths
along the axes, so that the sum over the grid is a product of sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_KERNEL = 3**3

Kept = tuple[Sequence[slice], Sequence[slice], Sequence[slice]]
"""Along z, y, x: the part of each block of a grid that is kept, in voxels of the block."""

Read = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Along z, y, x: the length of each block of a grid, with its halo, in voxels."""


def count_multiply_adds(width: int, outputs: Sequence[Sequence[int]]) -> int:
    """Count the multiply-adds of a `UNet3d` from what its convolutions give.

    Parameters
    ----------
    width : int
        Of the network.
    outputs : sequence of 13 sequences of 3 ints
        Lengths along z, y, x of what the convolutions give, in the order in which they run: two of
        each encoder, three of the bottleneck, the first transposed one, two of a decoder, the
        second transposed one, one of a decoder, and the head.
    """
    w = width
    each_voxel = (
        *(_KERNEL * a * b for a, b in ((1, w), (w, w))),
        *(_KERNEL * a * b for a, b in ((w, 2 * w), (2 * w, 2 * w))),
        *(_KERNEL * a * b for a, b in ((2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 4 * w))),
        # Kernels as large as their stride: a voxel comes of one.
        4 * w * 2 * w,
        *(_KERNEL * a * b for a, b in ((4 * w, 2 * w), (2 * w, 2 * w))),
        2 * w * w,
        _KERNEL * 2 * w * w,
        w + 1,
    )
    return sum(work * math.prod(n) for work, n in zip(each_voxel, outputs, strict=True))


def padded_multiply_adds(width: int, lengths: Sequence[int]) -> int:
    """Count the multiply-adds of a `UNet3d` whose convolutions are padded, as in training.

    Parameters
    ----------
    width : int
        Of the network.
    lengths : sequence of 3 ints
        Of what it is given, along z, y, x, multiples of its stride.
    """
    fine, coarse, deep = ([n // scale for n in lengths] for scale in (1, 2, 4))
    down = [fine, fine, coarse, coarse, deep, deep, deep]
    return count_multiply_adds(width, [*down, coarse, coarse, coarse, fine, fine, fine])


def least_multiply_adds(width: int) -> float:
    """Return the multiply-adds of a `UNet3d` for a voxel of its output, where there is no halo."""
    return padded_multiply_adds(width, (4, 4, 4)) / 4**3
