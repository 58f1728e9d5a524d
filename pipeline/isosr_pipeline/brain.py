"""Brain files: one volume's whole way, from source to evaluation, as YAML."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, ValidationError

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.explaining import explain
from isosr_pipeline.settings import (
    ConvertSettings,
    EvaluateSettings,
    RestoreSettings,
    Settings,
    TrainSettings,
)

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Brain(Settings):
    """What a brain file holds; unknown keys are errors.

    Attributes
    ----------
    source : Path
        What to convert.
    output : Path
        Folder for all results.
    model : Path or None
        A trained model to use; None: train one on this volume.
    cluster : str
        ``"local"`` or the address of a Dask scheduler.
    workers : int or None
        Worker processes on this machine; None: one a core.
    convert, train, restore, evaluate
        Parameters of the steps.
    """

    source: Path
    output: Path
    model: Path | None = None
    cluster: str = "local"
    workers: PositiveInt | None = None
    convert: ConvertSettings = Field(default_factory=ConvertSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    restore: RestoreSettings = Field(default_factory=RestoreSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @property
    def store(self) -> Path:
        """The converted volume."""
        return self.output / "volume.zarr"

    @property
    def trained_model(self) -> Path:
        """The model that restores, given or trained here."""
        return self.model or self.output / "model"

    @property
    def restored(self) -> Path:
        """The restored volume."""
        return self.output / "restored.zarr"

    @property
    def evaluation(self) -> Path:
        """The figures, as JSON."""
        return self.output / "evaluation.json"


def read_brain(path: Path) -> Brain:
    """Read a brain file.

    Parameters
    ----------
    path : Path
        YAML. ``${NAME}`` is replaced by the environment's variable; paths are relative to the file.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it is not valid; the message names the key.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist; give a brain file (YAML)")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys; see examples/brain.yaml")
    try:
        brain = Brain.model_validate(_expanded(content, path))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, Brain)}") from error
    return _anchored(brain, path.resolve().parent)


def _expanded(value: Any, path: Path) -> Any:
    """Replace variables of the environment in all texts."""
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise InputError(f"{path}: ${{{name}}} is not set in the environment; export it")
        return os.environ[name]

    return _VARIABLE.sub(lookup, value)


def _anchored(brain: Brain, folder: Path) -> Brain:
    """Make the paths of a brain absolute, from the folder of its file."""

    def anchor(path: Path) -> Path:
        return Path(os.path.normpath(folder / path))

    reference = brain.evaluate.reference
    return brain.model_copy(
        update={
            "source": anchor(brain.source),
            "output": anchor(brain.output),
            "model": anchor(brain.model) if brain.model else None,
            "train": brain.train.model_copy(
                update={"init": anchor(brain.train.init) if brain.train.init else None}
            ),
            "evaluate": brain.evaluate.model_copy(
                update={"reference": anchor(reference) if reference else None}
            ),
        }
    )
