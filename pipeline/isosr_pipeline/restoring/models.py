"""Restorers of model folders, the one that only resamples, and untrained ones for plans."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from isosr_models.architectures import Architecture, RichardsonLucyArchitecture, describe
from isosr_models.layers import Statistics
from isosr_models.methods import find_method
from isosr_models.model_folder import identity, load_restorer, read_description
from isosr_models.precision import Precision
from isosr_models.restorers import Restorer
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.brain import Brain
from isosr_pipeline.devices import choose_device
from isosr_pipeline.settings import Device
from isosr_pipeline.training.settings import RichardsonLucySettings

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


def architecture_of(brain: Brain, voxel_size: float | None = None) -> Architecture:
    """Return what a brain's restorer is, or will be once it is trained.

    Parameters
    ----------
    brain : Brain
    voxel_size : float, optional
        Of the isotropic grid, in µm; a PSF that is to be deconvolved with needs it.

    Raises
    ------
    ModelFormatError
        When the model that the brain names is none.
    InputError
        When its PSF can't be read, is none, or is too long.
    ValueError
        When the voxel size is needed, and not given.
    """
    if brain.model is not None:
        return read_description(brain.model).network
    if isinstance(brain.train, RichardsonLucySettings):
        if voxel_size is None:
            raise ValueError("voxel_size is None, and a PSF is to be brought onto a grid; give it")
        return describe(deconvolution(brain.train, voxel_size))
    return find_method(brain.train.method).architecture(brain.train.parameters())


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
