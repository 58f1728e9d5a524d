"""What fits the memory: how large a block may be, measured where it will be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from distributed import Client

from isosr_cluster.asking import ask_all
from isosr_cluster.clients import memory_per_worker
from isosr_models.layers import Statistics
from isosr_models.precision import Precision, native_precision
from isosr_models.restorers import LocalFunction
from isosr_pipeline.devices import choose_device
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, context
from isosr_pipeline.restoring.models import IDENTITY, is_float32, load
from isosr_pipeline.settings import Device, RestoreSettings

SMALLEST_AUTO_BLOCK = 120

_SHARE_OF_MEMORY = 0.6
_PROBED = Zyx(64, 64, 64)


@dataclass(frozen=True)
class Fit:
    """What a worker can do.

    Parameters
    ----------
    memory : int or None
        Free memory of its GPU in bytes; None where networks use the CPU.
    factor : float
        How many times what `Restorer.memory` tells a block takes.
    precision : {"32", "bf16"}
        What its device computes in natively.
    """

    memory: int | None
    factor: float
    precision: Precision


def ask_workers(client: Client, model: str, device: Device, statistics: Statistics) -> Fit:
    """Ask all workers of a cluster what they can do, and return what the least of them can.

    Parameters
    ----------
    client : distributed.Client
    model : str
        A model folder, or ``"identity"``.
    device : {"auto", "cpu", "cuda"}
    statistics : {"frozen", "block"}

    Raises
    ------
    InputError
        When a GPU is asked for and a worker has none, or only some have one.
    """
    return least_of(ask_all(client, partial(_probe, model, device, statistics)))


def least_of(fits: Sequence[Fit]) -> Fit:
    """Return what the least of some workers can do.

    Raises
    ------
    InputError
        When only some have a GPU.
    """
    on_gpus = [fit.memory for fit in fits if fit.memory is not None]
    if on_gpus and len(on_gpus) < len(fits):
        raise InputError(
            f"{len(on_gpus)} of {len(fits)} workers have a GPU; give --device cuda with a cluster "
            "of GPU workers, or --device cpu"
        )
    return Fit(
        memory=min(on_gpus) if on_gpus else None,
        factor=max(fit.factor for fit in fits),
        precision="bf16" if all(fit.precision == "bf16" for fit in fits) else "32",
    )


def choose_precision(settings: RestoreSettings, fit: Fit) -> Precision:
    """Return what blocks are computed in: as asked for, or what the workers do natively."""
    if settings.precision != "auto":
        return settings.precision
    # The publication computed in float32.
    return "32" if settings.scheme == "paper" else fit.precision


def _probe(model: str, device: Device, statistics: Statistics) -> Fit:
    """Measure what a small block takes; runs on a worker."""
    chosen = choose_device(device)
    if model == IDENTITY:
        return Fit(None, 1.0, "32")
    precision = "32" if is_float32(model) else native_precision(chosen)
    if chosen.type != "cuda":
        return Fit(None, 1.0, precision)
    return measured_fit(load(model, device, statistics, precision), precision)


def measured_fit(function: LocalFunction, precision: Precision) -> Fit:
    """Return what a worker can do, from a small block of a function on its GPU.

    Parameters
    ----------
    function : LocalFunction
        On the GPU.
    precision : {"32", "bf16"}
        What the GPU computes in natively.
    """
    block = context(Box.whole(_PROBED), function.halo, function.stride)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function(torch.zeros((1, 1, *block.read.shape)), block.keep.slices)
    taken = torch.cuda.max_memory_allocated() - before
    free, _total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    expected = function.memory(block.keep.shape, block.read.shape)
    return Fit(free + cached, taken / expected, precision)


def memory_of_block(client: Client, fit: Fit, region: int) -> int:
    """Return the memory in bytes that a block may take on the smallest worker of a cluster.

    Parameters
    ----------
    client : distributed.Client
    fit : Fit
        Of its workers.
    region : int
        Bytes of a region, which each task of a worker holds; only one of them is at the device.
    """
    if fit.memory is not None:
        return int(_SHARE_OF_MEMORY * fit.memory)
    return int(_SHARE_OF_MEMORY * memory_per_worker(client, less_per_task=2 * region))


def choose_block(shard: Zyx, restorer: LocalFunction, halo: int, memory: float) -> Zyx:
    """Choose what the network gives at once: the largest equal parts of a region that fit.

    Parameters
    ----------
    shard : Zyx
        A region, in voxels.
    restorer : LocalFunction
    halo : int
        In voxels.
    memory : float
        Bytes that a block may take, by the reckoning of the restorer.

    Raises
    ------
    InputError
        When not even blocks of 120 voxels fit.
    """
    parts = [1, 1, 1]
    while True:
        # Blocks of equal size in a region: a thin last one would be mostly halo.
        block = Zyx(*(-(-s // p) for s, p in zip(shard, parts, strict=True)))
        around = context(Box.whole(block), halo, restorer.stride)
        needed = restorer.memory(around.keep.shape, around.read.shape)
        if needed <= memory:
            return block
        axis = block.index(max(block))
        parts[axis] += 1
        if -(-shard[axis] // parts[axis]) < min(SMALLEST_AUTO_BLOCK, *shard):
            raise InputError(
                f"a task may use {memory / 1e9:.1f} GB for a block, and one of {block.z} × "
                f"{block.y} × {block.x} voxels with its halo takes {needed / 1e9:.1f} GB; give "
                "fewer --workers, or a smaller --block"
            )
