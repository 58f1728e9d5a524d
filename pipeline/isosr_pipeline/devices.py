"""The device that networks run on, as asked for, and its memory."""

from __future__ import annotations

from functools import partial

import torch

from isosr_cluster.clients import LOCAL, OpenClient, open_client
from isosr_cluster.gpus import find_gpus
from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import Device

_TASKS_AT_ONCE = 2
"""In a worker: while one is at the device, the other reads, decodes, encodes or writes."""


def choose_device(device: Device) -> torch.device:
    """Return the device to use.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        ``"auto"``: the GPU if there is one.

    Raises
    ------
    InputError
        When a GPU is asked for and none is there.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError(
            "device is cuda, and PyTorch finds no CUDA GPU here; check nvidia-smi and the "
            "installed torch, or give --device cpu"
        )
    if device == "auto":
        return torch.device("cuda" if available else "cpu")
    return torch.device(device)


def cluster_for(device: Device, cluster: str, workers: int | None) -> OpenClient:
    """Return how to connect to a cluster for work on a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    cluster : str
        ``"local"`` or the address of a scheduler.
    workers : int or None
        Processes on this machine. None: one a GPU, or one a core.

    Raises
    ------
    InputError
        When there are not as many GPUs as workers, or none.
    """
    if cluster != LOCAL:
        return partial(open_client, cluster, workers)
    gpus = find_gpus() if choose_device(device).type == "cuda" else None
    if gpus is not None and workers is not None:
        if workers > len(gpus):
            raise InputError(
                f"workers is {workers}, and each takes a GPU, of which this machine has "
                f"{len(gpus)}; give fewer --workers, or leave it out"
            )
        gpus = gpus[:workers]
    return partial(open_client, cluster, workers, threads_per_worker=_TASKS_AT_ONCE, gpus=gpus)
