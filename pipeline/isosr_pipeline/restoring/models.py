"""Restorers of model folders, the one that only resamples, and untrained ones for plans."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from isosr_models.architectures import Architecture, RichardsonLucyArchitecture
from isosr_models.layers import Statistics
from isosr_models.model_folder import identity, load_restorer, read_description
from isosr_models.precision import Precision
from isosr_models.restorers import Restorer
from isosr_pipeline.devices import choose_device
from isosr_pipeline.settings import Device

IDENTITY = "identity"
"""In place of a model folder: resample only."""

_UNTRAINED = "untrained:"
_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def untrained(architecture: Architecture) -> str:
    """Name a network that is made wherever it is loaded, to measure before there is a model.

    Parameters
    ----------
    architecture : Architecture
        Of the network.
    """
    return f"{_UNTRAINED}{architecture.model_dump_json()}"


def is_float32(model: str) -> bool:
    """Tell whether a model computes in float32 only, whatever the device has.

    Parameters
    ----------
    model : str
        Path of a model folder, ``"identity"``, or what `untrained` returned.
    """
    if model == IDENTITY:
        return True
    if model.startswith(_UNTRAINED):
        found = _ARCHITECTURE.validate_json(model.removeprefix(_UNTRAINED))
    else:
        found = read_description(Path(model)).network
    return isinstance(found, RichardsonLucyArchitecture)


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
        architecture = _ARCHITECTURE.validate_json(model.removeprefix(_UNTRAINED))
        network = architecture.build()
        return architecture.restorer(network, statistics, choose_device(device), precision)
    return load_restorer(
        Path(model), statistics=statistics, device=choose_device(device), precision=precision
    )
