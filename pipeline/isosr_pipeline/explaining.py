"""What is wrong with parameters, in the words of the command line and of brain files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from isosr_pipeline.settings import Settings

_LONGEST_VALUE = 60


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with parameters: each name, the rule, and the value found.

    Parameters
    ----------
    error : ValidationError
    model : type of BaseModel
        What the parameters should have been.
    """
    return "; ".join(f"{name}: {text}" for name, text in problems(error, model).items())


def problems(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """Return what is wrong with each parameter, by its name, such as ``"train.crop"``.

    Parameters
    ----------
    error : ValidationError
    model : type of BaseModel
        What the parameters should have been.
    """
    found: dict[str, str] = {}
    for item in error.errors():
        # Alternatives of a type, such as "auto" or lengths, are tried one by one: name it once.
        path = [str(part) for part in item["loc"] if not _is_alternative(part)]
        found.setdefault(
            ".".join(path), _problem(item["type"], item["msg"], item["input"], path, model)
        )
    return found


def _problem(
    kind: str, message: str, value: Any, path: Sequence[str], model: type[BaseModel]
) -> str:
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"is not known; {_known(path[-1], _section(model, path[:-1]))}"
    if kind == "model_type":
        section = _section(model, path)
        first = next(iter(section.model_fields)) if section else "name"
        return f"give keys below it, such as {first}: ..., not {_shown(value)}"
    if kind == "path_type":
        return f"give a path as text, not {_shown(value)}"
    text = message.removeprefix("Value error, ")
    # What is not given needs no showing.
    return text if kind == "value_error" and value is None else f"{text} (found {_shown(value)})"


def _known(name: str, section: type[BaseModel] | None) -> str:
    names = _names(section) if section else []
    if near := difflib.get_close_matches(name, names, n=3):
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(names)}"


def _names(section: type[BaseModel]) -> list[str]:
    return section.names() if issubclass(section, Settings) else list(section.model_fields)


def _section(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    """Return the type of the parameters at a path."""
    section: type[BaseModel] | None = model
    for name in path:
        field = section.model_fields.get(name) if section else None
        section = _model_in(field.annotation) if field else None
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the parameters that a type is, or has among its alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(one) for one in get_args(annotation))
    return next((one for one in found if one), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _is_alternative(part: int | str) -> bool:
    return isinstance(part, int) or "[" in part
