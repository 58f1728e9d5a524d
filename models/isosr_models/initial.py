"""Starting a training from the weights of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isosr_models.errors import ModelConfigError, ModelFormatError
from isosr_models.model_folder import (
    WEIGHTS,
    Description,
    load_weights,
    read_description,
    tensors_under,
)
from isosr_models.objective import Objective

_SAME = ("method", "width", "blur", "start", "bottleneck_norm", "blocks", "neighbours")


def start_from(objective: Objective, folder: Path, run: Mapping[str, Any]) -> None:
    """Give an objective the weights of a trained model; what that doesn't have stays as it is.

    Optimisers begin anew, and so do the critics, which a model folder does not hold.

    Parameters
    ----------
    objective : Objective
        Its networks are changed in place.
    folder : Path
        Of the model.
    run : mapping
        Parameters of the training that begins.

    Raises
    ------
    ModelConfigError
        When the model is of another method, width or start, or differs in what else its networks
        are built from; the message names each.
    ModelFormatError
        When the folder is no whole model, or its networks are built in another way.
    """
    description = read_description(folder)
    had = _parameters(description)
    differing = [
        f"{key} is {run[key]!r} here and {had[key]!r} there"
        for key in _SAME
        if key in had and key in run and had[key] != run[key]
    ]
    if differing:
        raise ModelConfigError(
            f"{folder} can't be started from: {', '.join(differing)}; give the same as there"
        )
    tensors = load_weights(folder, description)
    # What restores may be an average of the generator, which has a copy of its own.
    networks = {**objective.modules(), "": objective.restorer}
    for name, network in networks.items():
        prefix = f"{name or 'generator'}."
        state = tensors_under(prefix, tensors)
        if not state:
            continue
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ModelFormatError(
                f"{folder / WEIGHTS} does not fit the network {prefix.rstrip('.')!r} of this "
                f"training: {error}"
            ) from error


def _parameters(description: Description) -> dict[str, Any]:
    """Return what is known of how a model was trained."""
    run = description.training.get("run")
    network = description.network.model_dump()
    return {
        "start": "identity" if network.get("residual") else "random",
        **(run if isinstance(run, dict) else {}),
        "method": description.method,
        **network,
    }
