"""How fast workers compute, measured on a block of random voxels."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from distributed import Client

from isosr_cluster.asking import ask_all
from isosr_models.layers import Statistics
from isosr_models.precision import Precision
from isosr_models.restorers import Restorer
from isosr_pipeline.geometry import Box, Context, Zyx, context
from isosr_pipeline.restoring.models import load
from isosr_pipeline.restoring.schemes import TRIMMED
from isosr_pipeline.settings import Device

_EDGE = {"cpu": 96, "cuda": 192}
"""Voxels along a side of what a network is given: seconds of work for the slowest."""

_LEAST = 32
"""Voxels that are kept of it along a side, at least."""

_SECONDS = 2.0
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
    is_gpu = restorer.device.type == "cuda"
    found = _measured_block(restorer, statistics, block, _EDGE[restorer.device.type])
    voxels = torch.rand((1, 1, *found.read.shape))
    if is_gpu:
        # With the first block of a shape, libraries choose their ways.
        restorer(voxels, found.keep.slices)
    spent, fastest = 0.0, math.inf
    while spent < _SECONDS:
        begin = time.perf_counter()
        # What comes back to the processor is there.
        restorer(voxels, found.keep.slices).cpu()
        seconds = time.perf_counter() - begin
        spent, fastest = spent + seconds, min(fastest, seconds)
    z, y, x = ([part] for part in found.keep.slices)
    depth, height, width = ([n] for n in found.read.shape)
    return restorer.work((z, y, x), (depth, height, width)) / fastest


def _measured_block(restorer: Restorer, statistics: Statistics, block: Zyx, edge: int) -> Context:
    """Return a block that is no longer than needed to measure, with its halo."""
    # What is read beyond the receptive field costs nothing: it is cut off first.
    halo = restorer.halo if statistics == "frozen" else TRIMMED
    margin = -(-halo // restorer.stride) * restorer.stride
    # Halos may be longer than all of that.
    longest = max(edge - 2 * margin, _LEAST)
    kept = Zyx(*(min(n, longest) for n in block))
    return context(Box.whole(kept), halo, restorer.stride)
