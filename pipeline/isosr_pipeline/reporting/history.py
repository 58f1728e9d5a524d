"""What was done: the steps that led to a restored volume, and the model between them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from isosr_models.model_folder import DESCRIPTION, read_description
from isosr_pipeline.engine.survey import finished_at
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.reporting.pair import Pair
from isosr_pipeline.store.metadata import Provenance

_HASH = 12
"""Digits that name weights: enough to tell models apart by eye."""

_MAIN: dict[str, tuple[str, ...]] = {
    "convert": ("voxel_size", "dtype", "median", "deskew", "isotropic"),
    "train": ("method", "iterations", "weights", "window", "percentiles"),
    "restore": ("method", "model_sha256", "scheme", "precision", "windows"),
    "evaluate": ("reference", "channel", "spots"),
}
"""Parameters that are shown at once; all others are folded away."""


class Step(NamedTuple):
    """A step that led to the restored volume.

    Parameters
    ----------
    step, source : str
    when : str
        Day and time; empty: not known.
    main : list of str
        The parameters that tell most.
    given : int
        Of all parameters.
    text : str
        All that is known of the step, as JSON.
    versions : str
    """

    step: str
    source: str
    when: str
    main: list[str]
    given: int
    text: str
    versions: str

    @classmethod
    def of(cls, found: Provenance, when: float | None) -> Step:
        """Describe a step that ended at `when`, in Unix time."""
        recorded = {**found.parameters, "command": found.command, "figures": found.figures}
        return cls(
            step=found.step,
            source=found.source,
            when=day_and_time(when),
            main=[
                f"{_NAMES.get(name, name.replace('_', ' '))}: {_shown(name, value)}"
                for name in _MAIN.get(found.step, ())
                if (value := found.parameters.get(name)) not in (None, False, [])
            ],
            given=len(found.parameters),
            text=json.dumps(recorded, indent=1, ensure_ascii=False),
            versions=", ".join(f"{name} {version}" for name, version in found.versions.items()),
        )


_NAMES = {"model_sha256": "model", "windows": "window"}


def steps_of(pair: Pair, evaluation: Evaluation, model: Path | None) -> Iterator[Step]:
    """Yield the steps in their order, that of the model before the one that used it.

    Parameters
    ----------
    pair : Pair
    evaluation : Evaluation
    model : Path or None
        Folder of the model that restored the volume; None: it was not found.
    """
    own = pair.made.attributes
    *earlier, last = own.history if own and own.history else [None]
    converted = pair.measured.attributes
    for step in earlier:
        if step is not None:
            is_of_input = bool(converted and step in converted.history[-1:])
            yield Step.of(step, finished_at(pair.measured.path) if is_of_input else None)
    if model is not None:
        yield _training(model)
    if last is not None:
        yield Step.of(last, finished_at(pair.made.path))
    known = evaluation.measuring
    measuring = Provenance(
        step="evaluate",
        source=evaluation.restored,
        parameters=evaluation.settings.model_dump(mode="json"),
        versions=known.versions if known else {},
        command=list(known.command) if known else [],
    )
    yield Step.of(measuring, known.ended.timestamp() if known else None)


def day_and_time(when: float | None) -> str:
    """Return a time in words, with its zone; empty: it is not known."""
    return "" if when is None else time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(when))


def _training(model: Path) -> Step:
    description = read_description(model)
    run, made_with = (_mapping(description.training, name) for name in ("run", "versions"))
    stores = run.get("stores")
    sources = [str(one.get("path")) for one in stores] if isinstance(stores, list) else []
    parameters = {**run, "method": description.method, "weights": description.weights_sha256}
    found = Provenance(
        step="train",
        source=", ".join(sources),
        parameters=parameters,
        versions={str(name): str(version) for name, version in made_with.items()},
        command=[],
    )
    return Step.of(found, (model / DESCRIPTION).stat().st_mtime)


def _mapping(training: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = training.get(name)
    return found if isinstance(found, dict) else {}


def _shown(name: str, value: Any) -> str:
    if name in ("model_sha256", "weights"):
        return str(value)[:_HASH]
    if name in ("windows", "window"):
        return _range(value)
    return f"{_plain(value)} µm" if name == "voxel_size" else _plain(value)


def _range(value: Any) -> str:
    pairs = value if value and isinstance(value[0], list | tuple) else [value]
    return "; ".join(f"{low:g} to {high:g}" for low, high in pairs)


def _plain(value: Any) -> str:
    if value is True:
        return "yes"
    return " × ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
