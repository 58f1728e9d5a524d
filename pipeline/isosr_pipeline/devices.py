"""The device that networks run on, as asked for."""

from __future__ import annotations

import torch

from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import Device


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
