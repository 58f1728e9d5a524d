"""The model folder: safetensors weights and a JSON that says everything needed to run them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from isosr_models.architectures import Architecture, UNet3dArchitecture, describe
from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import DivergedError, ModelFormatError
from isosr_models.layers import Statistics
from isosr_models.precision import Precision
from isosr_models.restorers import IdentityRestorer, Restorer
from isosr_models.unet import UNet3d

FORMAT: Literal[2] = 2
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
_GENERATOR, _BLUR = "generator.", "blur."


class Description(BaseModel):
    """What ``model.json`` holds.

    Attributes
    ----------
    format : int
        Version of the folder's layout; this program writes 2, and reads 1 too.
    method : str
        How the restorer was made.
    network : Architecture
        What the weights under ``generator`` are of.
    voxel_size : float or None
        Of the isotropic grid that was trained on, in µm; None: not known.
    window_percentiles : tuple of 2 floats
        Percentiles of a volume that are 0 and 1 to the network.
    window : tuple of 2 floats or None
        Intensities that are 0 and 1 instead, if training was given them.
    weights_sha256 : str
        Of the weights file, to find one that was cut short or altered.
    training : dict
        Parameters, sources, figures and versions of the training, for the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    method: str
    network: Architecture
    voxel_size: float | None = Field(None, gt=0)
    window_percentiles: tuple[float, float]
    window: tuple[float, float] | None = None
    weights_sha256: str
    training: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _from_the_first_format(cls, given: Any) -> Any:
        # Which had the U-Net's properties beside the others.
        if not isinstance(given, dict) or given.get("format") != 1:
            return given
        own = {name: given[name] for name in UNet3dArchitecture.model_fields if name in given}
        others = {name: value for name, value in given.items() if name not in own}
        return {**others, "format": FORMAT, "network": {"kind": "unet3d", **own}}


def save_model(
    folder: Path,
    networks: Mapping[str, nn.Module],
    *,
    method: str,
    window_percentiles: tuple[float, float],
    training: dict[str, Any],
    window: tuple[float, float] | None = None,
    voxel_size: float | None = None,
) -> Description:
    """Write a model folder; the description goes last, so that a folder with one is whole.

    Parameters
    ----------
    folder : Path
        Made if need be; a model in it is replaced.
    networks : mapping of str to Module
        ``"generator"`` (a `VolumeNetwork`) and what else the method keeps, such as ``"blur"``.
    method : str
    window_percentiles : tuple of 2 floats
    training : dict
        Anything that JSON can hold.
    window : tuple of 2 floats, optional
    voxel_size : float, optional
        See `Description`.

    Raises
    ------
    ModelFormatError
        When ``networks["generator"]`` is of no known kind.
    DivergedError
        When a weight is not a finite number; nothing is written.
    """
    architecture = describe(networks["generator"])
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DivergedError(
                f"{name} holds NaN or infinities, so the model is not saved; look for extreme "
                "intensities in the volume, or train with a smaller learning rate"
            )
    weights = save(tensors)
    description = Description(
        method=method,
        network=architecture,
        voxel_size=voxel_size,
        window_percentiles=window_percentiles,
        window=window,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training=training,
    )
    (folder / DESCRIPTION).unlink(missing_ok=True)
    write_durably(folder / WEIGHTS, weights)
    write_durably(folder / DESCRIPTION, f"{description.model_dump_json(indent=2)}\n".encode())
    return description


def read_description(folder: Path) -> Description:
    """Read and check ``model.json``.

    Raises
    ------
    ModelFormatError
        When the folder is no model, or one of another version.
    """
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise ModelFormatError(
            f"{folder} is not a model: there is no such folder; give the one that train wrote"
        )
    if not path.is_file() and any(folder.glob("checkpoint.*")):
        raise ModelFormatError(
            f"{folder} is a training that is not finished; go on with it: train with --resume"
        )
    if not path.is_file():
        raise ModelFormatError(
            f"{folder} is not a model: it has no {DESCRIPTION}; give the folder that train wrote"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Description.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(
            f"{path} is not valid JSON ({error}): it was cut short or altered; train again"
        ) from error
    except ValidationError as error:
        found = content.get("format") if isinstance(content, dict) else None
        detail = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise ModelFormatError(
            f"{path} has format {found!r}, and this program reads 1 and {FORMAT} ({detail}); "
            "use the version that wrote it or train again"
        ) from error


def read_run(folder: Path) -> dict[str, Any]:
    """Read what a model's training was begun with: its stores and parameters.

    Raises
    ------
    ModelFormatError
        When the folder is no model, or doesn't say.
    """
    run = read_description(folder).training.get("run")
    if not isinstance(run, dict):
        raise ModelFormatError(
            f"{folder / DESCRIPTION}: training has no 'run' with stores and parameters to compare "
            "with, so it can't be resumed; give another path, or --overwrite to train again"
        )
    return run


def load_restorer(
    folder: Path,
    *,
    statistics: Statistics = "frozen",
    device: torch.device | str = "cpu",
    precision: Precision = "32",
) -> Restorer:
    """Load a trained model, ready to run.

    Parameters
    ----------
    folder : Path
        Written by `save_model`.
    statistics : {"frozen", "block"}
        See `NetworkRestorer`.
    device : torch.device or str
    precision : {"32", "bf16"}

    Raises
    ------
    ModelFormatError
        When a file is missing, cut short, altered, or of another version.
    """
    description = read_description(folder)
    tensors = load_weights(folder, description)
    network = description.network.build()
    try:
        network.load_state_dict(tensors_under(_GENERATOR, tensors))
    except RuntimeError as error:
        raise ModelFormatError(
            f"{folder / WEIGHTS} does not hold the {description.network} of {DESCRIPTION}: {error}"
        ) from error
    return description.network.restorer(network, statistics, torch.device(device), precision)


def load_blur(folder: Path) -> DeepLinear3d | UNet3d:
    """Load the blur that a model has learned, on the CPU and in evaluation mode.

    Parameters
    ----------
    folder : Path
        Written by `save_model`.

    Returns
    -------
    DeepLinear3d or UNet3d

    Raises
    ------
    ModelFormatError
        When a file is missing, cut short, altered, or holds no blur.
    """
    description = read_description(folder)
    state = tensors_under(_BLUR, load_weights(folder, description))
    known = description.network
    if not state or not isinstance(known, UNet3dArchitecture):
        raise ModelFormatError(f"{folder / WEIGHTS} holds no blur; train a model that learns one")
    try:
        first = state.get("layers.0.weight")
        network: DeepLinear3d | UNet3d = (
            known.build() if first is None else DeepLinear3d(len(first), residual=known.residual)
        )
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise ModelFormatError(
            f"{folder / WEIGHTS} holds a blur that this program does not know: {error}"
        ) from error
    return network.eval()


def identity() -> Restorer:
    """Return the restorer that changes nothing, the baseline of every comparison."""
    return IdentityRestorer()


def load_weights(folder: Path, description: Description) -> dict[str, torch.Tensor]:
    """Read the weights of a model folder, by network and name: ``"generator.head.0.weight"``.

    Raises
    ------
    ModelFormatError
        When the file is missing, cut short or altered.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelFormatError(f"{folder} has no {WEIGHTS}: copy the whole model folder again")
    if _sha256(path) != description.weights_sha256:
        raise ModelFormatError(
            f"{path} does not match the checksum in {DESCRIPTION}: it was cut short or altered; "
            "copy the model folder again or train again"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelFormatError(f"{path} is not a safetensors file: {error}") from error


def tensors_under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix such as ``"generator."``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
