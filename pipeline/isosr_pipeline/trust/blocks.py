"""What is judged at once, and the places in which intensities are compared before."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distributed import Client

from isosr_models.restorers import LocalFunction
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Context, Zyx, context
from isosr_pipeline.restoring.fitting import Fit, memory_of_block
from isosr_pipeline.trust.outline import MapOutline
from isosr_pipeline.trust.planes import MARGIN, Planes

PLACES = 48
"""In which the intensities of a channel are compared, at most."""

_PLACE = 48
_SMALLEST, _LARGEST = 32, 192
_BYTES_PER_VOXEL = 64
"""Of what is compared: the planes, what is made of them, and doubles on the way."""


def place_edge(planes: Planes) -> int:
    """Return how long a place is in which intensities are compared, in voxels.

    Parameters
    ----------
    planes : Planes
    """
    # One voxel longer than planes lie apart: each place holds one, also at the border.
    return max(_PLACE, math.ceil(planes.step) + 1)


def compared(box: Box, halo: int, stride: int) -> Context:
    """Grow a box of the restored volume by what comparing it with measured planes looks at.

    Parameters
    ----------
    box : Box
        In voxels.
    halo, stride : int
        Of the blur.
    """
    start, stop = box.start.z - MARGIN, box.stop.z + MARGIN
    around = Box(box.start._replace(z=start), box.stop._replace(z=stop))
    return context(around, halo, stride)


def choose_block(client: Client, fit: Fit, function: LocalFunction, outline: MapOutline) -> Zyx:
    """Choose what is judged at once: whole cells, as many as fit the memory.

    Parameters
    ----------
    client : distributed.Client
    fit : Fit
        Of its workers.
    function : LocalFunction
        The blur.
    outline : MapOutline

    Returns
    -------
    Zyx
        In voxels of the restored volume.

    Raises
    ------
    InputError
        When not even blocks of 32 voxels fit.
    """
    block = [min(n, _LARGEST) for n in outline.region]
    memory = memory_of_block(client, fit, held(outline, block)) / fit.factor
    while (needed := needed_for(function, block)) > memory:
        axis = block.index(max(block))
        if block[axis] <= _SMALLEST:
            raise InputError(
                f"a task may use {memory / 1e9:.1f} GB, and a block of {block[axis]} voxels "
                f"with its halo takes {needed / 1e9:.1f} GB; give fewer --workers"
            )
        block[axis] = -(-block[axis] // 2)
    return Zyx(*(max(1, n // c) * c for n, c in zip(block, outline.cell, strict=True)))


def held(outline: MapOutline, block: Sequence[int]) -> int:
    """Return the bytes that a task holds beside what is at the device, about.

    Parameters
    ----------
    outline : MapOutline
    block : sequence of 3 ints
        What is judged at once, in voxels.
    """
    return 4 * math.prod(outline.spec.shard) + _BYTES_PER_VOXEL * math.prod(block)


def needed_for(function: LocalFunction, block: Sequence[int]) -> int:
    """Return the bytes that blurring a block takes, about, by the reckoning of the blur.

    Parameters
    ----------
    function : LocalFunction
    block : sequence of 3 ints
        What is judged at once, in voxels.
    """
    around = compared(Box.whole(Zyx(*block)), function.halo, function.stride)
    return function.memory(around.keep.shape, around.read.shape)
