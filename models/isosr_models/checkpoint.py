"""Checkpoints: all that training needs to go on as if it had never stopped.

One safetensors file holds networks, optimiser states and the state of torch's random numbers; its
header says which run it belongs to. It is replaced as a whole, so that there is always a whole one.
Beside the newest, the one before it is kept, and the last that was written while all went well.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isosr_models.errors import ModelFormatError
from isosr_models.model_folder import tensors_under, write_durably
from isosr_models.objective import Objective

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
GOOD = "checkpoint.good.safetensors"
FAILURE = "failure.json"
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
    failures : tuple of dict
        Where training broke down before and was gone on with: the iteration, the reason, and what
        was changed.
    watch : dict
        What whoever watches the training must remember.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int
    seconds: float
    run: dict[str, Any]
    failures: tuple[dict[str, Any], ...] = ()
    watch: dict[str, Any] = Field(default_factory=dict)


def save_checkpoint(
    folder: Path, objective: Objective, progress: Progress, *, good: bool = True
) -> None:
    """Write a checkpoint into a model folder; the one before it is kept.

    Parameters
    ----------
    folder : Path
    objective : Objective
    progress : Progress
    good : bool
        Whether all went well until here; with weights that are all finite, the checkpoint is then
        also kept as the one to go back to.
    """
    tensors = {_RANDOM: torch.get_rng_state()}
    for name, network in objective.modules().items():
        for key, value in network.state_dict().items():
            tensors[f"network/{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in objective.optimisers().items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{name}/{index}/{key}"] = value.detach().cpu().contiguous()
    if (folder / CHECKPOINT).is_file():
        _keep(folder / CHECKPOINT, folder / PREVIOUS)
    write_durably(folder / CHECKPOINT, save(tensors, {_PROGRESS: progress.model_dump_json()}))
    if good and all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point()):
        _keep(folder / CHECKPOINT, folder / GOOD)


def go_back(folder: Path, reason: str) -> int:
    """Make the last good checkpoint the one to go on from, and record why.

    Parameters
    ----------
    folder : Path
    reason : str
        What was seen.

    Returns
    -------
    int
        The iteration of that checkpoint.
    """
    if (folder / GOOD).is_file():
        _keep(folder / GOOD, folder / CHECKPOINT)
        (folder / PREVIOUS).unlink(missing_ok=True)
    iteration = read_progress(folder).iterations
    record = {"iteration": iteration, "reason": reason}
    write_durably(folder / FAILURE, f"{json.dumps(record, indent=2)}\n".encode())
    return iteration


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Read what `go_back` recorded; None where training did not break down, or can't be told."""
    try:
        found = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remove_checkpoints(folder: Path) -> None:
    """Remove all that only an unfinished training needs."""
    for name in (PREVIOUS, GOOD, FAILURE, CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _keep(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what has it, with no moment without a whole file."""
    # Renaming one name of a file to another of its names would leave both.
    if name.is_file() and name.samefile(path):
        return
    partial = name.with_name(f"{name.name}.link")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        # Not all file systems have links.
        shutil.copyfile(path, partial)
    partial.replace(name)


def _newest(folder: Path) -> Path:
    """Return the newest checkpoint that is whole; the newest if none is."""
    for name in (CHECKPOINT, PREVIOUS):
        try:
            with safe_open(folder / name, framework="pt"):
                return folder / name
        except (SafetensorError, OSError):
            continue
    return folder / CHECKPOINT


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
    progress = read_progress(folder)
    path = _newest(folder)
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
    path = _newest(folder)
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
        network.load_state_dict(tensors_under(f"network/{name}/", tensors))
    for name, optimiser in objective.optimisers().items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors_under(f"optimiser/{name}/", tensors).items():
            index, field = key.split("/")
            states.setdefault(int(index), {})[field] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states, "param_groups": groups})
