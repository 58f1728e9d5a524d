"""How fast workers compute, measured on a block of random voxels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from distributed import Client

from isosr_cluster.asking import ask_all
from isosr_models.layers import Statistics
from isosr_models.precision import Precision
from isosr_models.restorers import LocalFunction
from isosr_pipeline.geometry import Box, Context, Zyx, context
from isosr_pipeline.restoring.models import load
from isosr_pipeline.restoring.schemes import TRIMMED
from isosr_pipeline.settings import Device

_EDGE = {"cpu": 96, "cuda": 192}
"""Voxels along a side of what a network is given: seconds of work for the slowest."""

_LEAST = 32
"""Voxels that are kept of it along a side, at least."""

SECONDS = 2.0
"""What is quicker is repeated, as the first time takes longer."""


def measure_rate(
    client: Client,
    model: str,
    device: Device,
    statistics: Statistics,
    precision: Precision,
    block: Zyx,
) -> float:
    """Measure how many multiply-adds a second the workers of a cluster do together.

    All compute at the same time, as they will in a run: they may share a processor's memory.

    Parameters
    ----------
    client : distributed.Client
    model : str
        A model folder, or what `untrained` returned.
    device : {"auto", "cpu", "cuda"}
    statistics : {"frozen", "block"}
    precision : {"32", "bf16"}
    block : Zyx
        What a network will give at once, in voxels; a smaller one is measured where that is long.
    """
    return sum(ask_all(client, partial(_rate, model, device, statistics, precision, block)))


def _rate(
    model: str, device: Device, statistics: Statistics, precision: Precision, block: Zyx
) -> float:
    """Return multiply-adds a second; runs on a worker."""
    restorer = load(model, device, statistics, precision)
    # What is read beyond the receptive field costs nothing: it is cut off first.
    found = measured_block(restorer, restorer.halo if statistics == "frozen" else TRIMMED, block)
    voxels = torch.rand((1, 1, *found.read.shape))
    # What comes back to the processor is there.
    seconds = fastest_of(
        lambda: restorer(voxels, found.keep.slices).cpu(), is_gpu=restorer.device.type == "cuda"
    )
    return work_of(restorer, found) / seconds


def work_of(function: LocalFunction, block: Context) -> int:
    """Return how many multiply-adds a function takes for a block."""
    z, y, x = ([part] for part in block.keep.slices)
    depth, height, width = ([n] for n in block.read.shape)
    return function.work((z, y, x), (depth, height, width))


def fastest_of(call: Callable[[], object], *, is_gpu: bool = False) -> float:
    """Return how many seconds a call takes at best, of some seconds' worth of calls."""
    if is_gpu:
        # With the first block of a shape, libraries choose their ways.
        call()
    spent, fastest = 0.0, math.inf
    while spent < SECONDS:
        begin = time.perf_counter()
        call()
        seconds = time.perf_counter() - begin
        spent, fastest = spent + seconds, min(fastest, seconds)
    return fastest


def measured_block(function: LocalFunction, halo: int, block: Zyx) -> Context:
    """Return a block that is no longer than needed to measure, with its halo.

    Parameters
    ----------
    function : LocalFunction
    halo : int
        What it is given around the block, in voxels.
    block : Zyx
        What it will give at once, in voxels.
    """
    margin = -(-halo // function.stride) * function.stride
    # Halos may be longer than all of that.
    longest = max(_EDGE[function.device.type] - 2 * margin, _LEAST)
    kept = Zyx(*(min(n, longest) for n in block))
    return context(Box.whole(kept), halo, function.stride)
