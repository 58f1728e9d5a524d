"""Checkpoints: all that training needs to go on as if it had never stopped.

One safetensors file holds networks, optimiser states and the state of torch's random numbers; its
header says which run it belongs to. It is replaced as a whole, so that there is always a good one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isosr_models.errors import ModelFormatError
from isosr_models.methods import Objective
from isosr_models.model_folder import write_durably

CHECKPOINT = "checkpoint.safetensors"
_PROGRESS = "progress"
_RANDOM = "random"


class Progress(BaseModel):
    """How far a run of training is.

    Attributes
    ----------
    iterations : int
        Steps taken.
    seconds : float
        Time spent on them.
    run : dict
        What the run is of: another run must not go on from it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int
    seconds: float
    run: dict[str, Any]


def save_checkpoint(folder: Path, objective: Objective, progress: Progress) -> None:
    """Write a checkpoint into a model folder, in place of an earlier one."""
    tensors = {_RANDOM: torch.get_rng_state()}
    for name, network in objective.modules().items():
        for key, value in network.state_dict().items():
            tensors[f"network/{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in objective.optimisers().items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{name}/{index}/{key}"] = value.detach().cpu().contiguous()
    write_durably(folder / CHECKPOINT, save(tensors, {_PROGRESS: progress.model_dump_json()}))


def load_checkpoint(folder: Path, objective: Objective) -> Progress:
    """Put an objective, and torch's random numbers, into the state of a checkpoint.

    Parameters
    ----------
    folder : Path
    objective : Objective
        Made with the parameters of the run that wrote the checkpoint.

    Raises
    ------
    ModelFormatError
        When the checkpoint is missing, cut short, or of another objective.
    """
    path = folder / CHECKPOINT
    progress = read_progress(folder)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _put(objective, tensors)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelFormatError(
            f"{path} does not fit the networks of this run ({error}); start again with --overwrite"
        ) from error
    torch.set_rng_state(tensors[_RANDOM])
    return progress


def read_progress(folder: Path) -> Progress:
    """Read how far the run of a checkpoint is.

    Raises
    ------
    ModelFormatError
        When the checkpoint is missing or cut short.
    """
    path = folder / CHECKPOINT
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        return Progress.model_validate(json.loads(header[_PROGRESS]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFormatError(
            f"{path} is no readable checkpoint ({error}); start again with --overwrite"
        ) from error


def _put(objective: Objective, tensors: dict[str, Tensor]) -> None:
    for name, network in objective.modules().items():
        prefix = f"network/{name}/"
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    for name, optimiser in objective.optimisers().items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser/{name}/"):
                index, field = key.split("/")[2:]
                states.setdefault(int(index), {})[field] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states, "param_groups": groups})
