"""What is to be read of a path: an array, a time point, folders as channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from isosr_pipeline.errors import InputError

SEPARATOR = "::"
_SHOWN = 10


@dataclass(frozen=True)
class Selection:
    """What was asked for of a source, or, in a source, what is read of it.

    Parameters
    ----------
    array : str or None
        Name of an array in a container.
    time : int or None
        Time point, from 0.
    channel_pattern : str or None
        Glob of the sub-folders that are the channels, such as ``"Ex_*"``.
    """

    array: str | None = None
    time: int | None = None
    channel_pattern: str | None = None


def split_location(location: str | Path) -> tuple[Path, str | None]:
    """Split ``path::array`` into the path and the name of the array, None without one."""
    text = str(location)
    path, separator, array = text.partition(SEPARATOR)
    if not separator or Path(text).exists():
        return Path(text), None
    return Path(path), array.strip("/")


def the_only(names: Iterable[str], path: Path, what: str) -> str:
    """Return the one name there is.

    Parameters
    ----------
    names : iterable of str
        Of the arrays in a container that could be meant; no more of them are taken than shown.
    path : Path
        Of the container.
    what : str
        How messages call what is looked for, such as ``"3D or 4D dataset"``.

    Raises
    ------
    InputError
        When there is none, or more than one; then some are listed.
    """
    found = list(islice(names, _SHOWN + 1))
    if not found:
        raise InputError(f"{path} holds no {what}; give a file that holds a volume")
    if len(found) > 1:
        raise InputError(
            f"{path} holds more than one {what}: {shown(found)}; "
            f"write {path}{SEPARATOR}NAME, such as {path}{SEPARATOR}{found[0]}"
        )
    return found[0]


def shown(names: Iterable[str]) -> str:
    """List the first ten names."""
    found = list(islice(names, _SHOWN + 1))
    return ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "") or "nothing"
