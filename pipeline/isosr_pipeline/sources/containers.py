"""What the folders of Zarr v2, Zarr v3 and N5 containers say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from isosr_pipeline.errors import InputError
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.sources.selection import SEPARATOR
from isosr_pipeline.sources.slices import SUFFIXES, natural_key
from isosr_pipeline.store.tensorstores import Driver

_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_GROUP_MARKS = ("zarr.json", ".zgroup", ".zattrs", "attributes.json")
_DEEPEST = 12

# What reading damaged metadata raises.
_FAILURES = (OSError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Node:
    """A group or an array.

    Parameters
    ----------
    name : str
        In its container, parts joined by ``/``; empty for the root.
    attributes : dict
        The user's.
    driver : str or None
        Format of an array; None for a group.
    shape : tuple of int
        Of an array, in the order of its metadata; empty for a group.
    dimensions : tuple of str
        Names of the axes in the order of `shape`; empty if they aren't named.
    """

    name: str
    attributes: dict[str, Any]
    driver: Driver | None = None
    shape: tuple[int, ...] = ()
    dimensions: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it is a group with the levels of an OME-Zarr image."""
        ome = self.attributes.get("ome", self.attributes)
        return self.driver is None and isinstance(ome, dict) and "multiscales" in ome


def is_container(path: Path) -> bool:
    """Tell whether a folder is, by its name or by what lies in it, a Zarr or N5 container."""
    if path.suffix.lower() in (".zarr", ".n5") or any((path / m).is_file() for m in _MARKS):
        return True
    has_n5 = (path / "attributes.json").is_file()
    return has_n5 and not any(p.suffix.lower() in SUFFIXES for p in path.iterdir())


def root_of(folder: Path) -> tuple[Path, str]:
    """Return the container that a folder lies in, and the folder's name in it.

    What lies above an array may say how large its voxels are: an array that is given as a folder,
    ``image.zarr/0``, is read like ``image.zarr::0``.
    """
    root, name = folder, ""
    while root.parent != root and any((root.parent / m).is_file() for m in _GROUP_MARKS):
        root, name = root.parent, f"{root.name}/{name}".strip("/")
    return root, name


def read_node(container: Path, name: str) -> Node | None:
    """Read what a folder in a container is; None if it is neither group nor array.

    Parameters
    ----------
    container : Path
    name : str
        Of the node; empty for the root.

    Raises
    ------
    InputError
        When the name leads out of the container, or the metadata are damaged.
    """
    folder = _inside(container, name)
    if not folder.is_dir():
        return None
    try:
        return _node(folder, name)
    except _FAILURES as error:
        raise_unless_damage(error, folder)
        raise InputError(
            f"{folder}: the metadata can't be read ({error}); they are damaged or cut short: "
            "copy the container again"
        ) from error


def parents(container: Path, name: str) -> Iterator[Node]:
    """Return the groups that a node is in, the nearest first, the root last."""
    parts = PurePosixPath(name).parts
    for count in reversed(range(len(parts))):
        node = read_node(container, "/".join(parts[:count]))
        if node is not None:
            yield node


def images(container: Path, name: str = "", depth: int = 0) -> Iterator[str]:
    """Find the names of OME-Zarr images and of other arrays of 3 to 5 axes, in natural order."""
    node = read_node(container, name)
    if node is not None and (node.is_image or node.driver is not None):
        if node.is_image or 3 <= len(node.shape) <= 5:
            yield name
        return
    folder = container / name
    below = (p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
    if depth < _DEEPEST:
        for child in sorted(below, key=natural_key):
            yield from images(container, f"{name}/{child}".lstrip("/"), depth + 1)


def _inside(container: Path, name: str) -> Path:
    """Return a node's folder, and refuse one that isn't in the container."""
    folder = container / name
    if ".." in PurePosixPath(name).parts or not folder.resolve().is_relative_to(
        container.resolve()
    ):
        raise InputError(
            f"{container}{SEPARATOR}{name} leads out of the container, which is not followed; "
            "give the folder that it leads to"
        )
    return folder


def _node(folder: Path, name: str) -> Node:
    if (folder / "zarr.json").is_file():
        meta = _json(folder / "zarr.json")
        attributes = _table(meta.get("attributes", {}))
        if meta["node_type"] != "array" if "node_type" in meta else "shape" not in meta:
            return Node(name, attributes)
        names = [str(n or "") for n in meta.get("dimension_names") or ()]
        return Node(name, attributes, "zarr3", _lengths(meta.get("shape")), tuple(names))
    attributes = _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
    if (folder / ".zarray").is_file():
        lengths = _lengths(_json(folder / ".zarray").get("shape"))
        names = [str(n) for n in attributes.get("_ARRAY_DIMENSIONS", ())]
        return Node(name, attributes, "zarr", lengths, tuple(names))
    if (folder / "attributes.json").is_file():
        attributes = _json(folder / "attributes.json")
        if {"dimensions", "dataType", "blockSize"} <= set(attributes):
            return Node(name, attributes, "n5", _lengths(attributes["dimensions"]))
    return Node(name, attributes)


def _json(path: Path) -> dict[str, Any]:
    return _table(json.loads(path.read_text(encoding="utf-8")))


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a table of attributes was expected")
    return value


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise TypeError("an array's shape was expected")
    return tuple(int(n) for n in values)
