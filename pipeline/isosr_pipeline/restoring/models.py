"""Restorers of model folders, the one that only resamples, and untrained ones for plans."""

from __future__ import annotations

from pathlib import Path

from isosr_models.layers import Statistics
from isosr_models.model_folder import identity, load_restorer
from isosr_models.precision import Precision
from isosr_models.restorers import NetworkRestorer, Restorer
from isosr_models.unet import UNet3d
from isosr_pipeline.devices import choose_device
from isosr_pipeline.settings import Device

IDENTITY = "identity"
"""In place of a model folder: resample only."""

_UNTRAINED = "untrained:"


def untrained(width: int) -> str:
    """Name a network that is made wherever it is loaded, to measure before there is a model.

    Parameters
    ----------
    width : int
        Of the network.
    """
    return f"{_UNTRAINED}{width}"


def load(model: str, device: Device, statistics: Statistics, precision: Precision) -> Restorer:
    """Load the restorer of a model folder, the identity, or what `untrained` names.

    Parameters
    ----------
    model : str
        Path of a model folder, ``"identity"``, or what `untrained` returned.
    device : {"auto", "cpu", "cuda"}
    statistics : {"frozen", "block"}
    precision : {"32", "bf16"}

    Raises
    ------
    ModelFormatError
        When a file is missing, cut short, altered, or of another version.
    InputError
        When there is no such device.
    """
    if model == IDENTITY:
        return identity()
    if model.startswith(_UNTRAINED):
        network = UNet3d(int(model.removeprefix(_UNTRAINED)))
        return NetworkRestorer(network, statistics, choose_device(device), precision)
    return load_restorer(
        Path(model), statistics=statistics, device=choose_device(device), precision=precision
    )
