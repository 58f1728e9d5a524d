"""Restorers of model folders, and the one that only resamples."""

from __future__ import annotations

from pathlib import Path

from isosr_models.layers import Statistics
from isosr_models.model_folder import identity, load_restorer
from isosr_models.precision import Precision
from isosr_models.restorers import Restorer
from isosr_pipeline.devices import choose_device
from isosr_pipeline.settings import Device

IDENTITY = "identity"
"""In place of a model folder: resample only."""


def load(model: str, device: Device, statistics: Statistics, precision: Precision) -> Restorer:
    """Load the restorer of a model folder, or the identity.

    Parameters
    ----------
    model : str
        Path of a model folder, or ``"identity"``.
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
    return load_restorer(
        Path(model), statistics=statistics, device=choose_device(device), precision=precision
    )
