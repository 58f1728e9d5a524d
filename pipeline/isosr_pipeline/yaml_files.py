"""YAML files of the user's: read safely, with variables, checked against a model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.explaining import explain

Model = TypeVar("Model", bound=BaseModel)

_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class _GivenTwiceError(yaml.YAMLError):
    """A key is given twice, of which YAML's own reader keeps the last without a word."""


class _Loader(yaml.SafeLoader):
    """Reads 12:00:00 as text, not as a number to the base of 60, and 1e-4 as a number.

    Keys that are given twice are errors.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys all differ."""
        # Where it is constructed keys may come twice: those that it merges (<<), and its own.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if (first := lines.get((key.tag, key.value))) is not None:
                raise _GivenTwiceError(
                    f"line {line}: {key.value} is given twice, first in line {first}; keep one"
                )
            lines[key.tag, key.value] = line
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":float"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_DIGITS = list("-+.0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), _DIGITS
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"
    ),
    _DIGITS,
)


def read_yaml(
    path: Path, model: type[Model], what: str, variables: Mapping[str, str] | None = None
) -> Model:
    """Read a file and check it.

    Parameters
    ----------
    path : Path
    model : type of BaseModel
        What it must hold; unknown keys are errors.
    what : str
        For messages, such as ``"a brain file, like examples/brain.yaml"``.
    variables : mapping of str to str, optional
        What ``${NAME}`` is replaced by, before the environment is asked.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it is not valid; the message names the key, and the line of one that is given twice.
    """
    content = _loaded(path, what)
    try:
        return model.model_validate(_expanded(content, path, {**os.environ, **(variables or {})}))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, model)}") from error


def variables_in(path: Path, what: str) -> set[str]:
    """Return the names of the variables that a file uses, those in comments left out.

    Parameters
    ----------
    path : Path
    what : str
        For messages.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it is not YAML.
    """
    return set(find_variables(_loaded(path, what)))


def find_variables(value: Any) -> Iterator[str]:
    """Find the names of the variables in all texts of what a file holds.

    Parameters
    ----------
    value : dict, list, or any other value
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from find_variables(item)
    elif isinstance(value, str):
        yield from _VARIABLE.findall(value)


def _loaded(path: Path, what: str) -> dict[Any, Any]:
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist; give {what} (YAML)")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
    except _GivenTwiceError as error:
        raise InputError(f"{path}, {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys; give {what}")
    return content


def _expanded(value: Any, path: Path, variables: Mapping[str, str]) -> Any:
    """Replace variables in all texts."""
    if isinstance(value, dict):
        return {key: _expanded(item, path, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path, variables) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            raise InputError(f"{path}: ${{{name}}} is not set in the environment; export it")
        return variables[name]

    return _VARIABLE.sub(lookup, value)
