"""The multiscales attribute of OME-Zarr 0.4 and 0.5, as any program may have written it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from isosr_pipeline.errors import InputError

UNITS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
"""Lengths in µm of the units that OME-Zarr names."""

FINEST, COARSEST = 1e-4, 1e4
"""Bounds of a voxel's edge in µm."""

# What reading an attribute of another form raises.
_FAILURES = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Multiscale:
    """One image of an OME-Zarr group: its axes, and where its levels are.

    Parameters
    ----------
    axes : tuple of str
        Names, in the order of the arrays.
    units : tuple of str or None
        One for each axis.
    paths : tuple of str
        Of the levels' arrays in the group, finest first.
    scales : tuple of tuple of float
        For each level, one for each axis, in the axis' unit.
    translation : tuple of float
        Centre of the first voxel of the finest level, one for each axis, in the axis' unit.
    labels : tuple of str
        Of the channels; empty if there are none.
    """

    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    translation: tuple[float, ...]
    labels: tuple[str, ...]


def read_multiscale(attributes: dict[str, Any], where: str) -> Multiscale:
    """Read the first image of OME-Zarr 0.4 or 0.5 attributes.

    Parameters
    ----------
    attributes : dict
        Of the group.
    where : str
        Path that messages name.

    Raises
    ------
    InputError
        When it is no OME-Zarr image, or a level leads out of the store.
    """
    try:
        ome = attributes.get("ome", attributes)
        image = ome["multiscales"][0]
        axes = [axis["name"] for axis in image["axes"]]
        units = [axis.get("unit") for axis in image["axes"]]
        paths = tuple(str(level["path"]) for level in image["datasets"])
        whole = _scale(image.get("coordinateTransformations", []), [1.0] * len(axes))
        scales = tuple(
            tuple(float(a) * float(b) for a, b in zip(_scale(level), whole, strict=True))
            for level in (level["coordinateTransformations"] for level in image["datasets"])
        )
        translation = _translation(image["datasets"][0]["coordinateTransformations"], len(axes))
        labels = tuple(str(c.get("label", "")) for c in ome.get("omero", {}).get("channels", []))
        if not paths:
            raise KeyError("datasets")
        if any(len(lengths) != len(axes) for lengths in (*scales, translation)):
            raise ValueError(f"transformations must have a number for each of the axes {axes}")
    except _FAILURES as error:
        raise InputError(
            f"{where} is not an OME-Zarr image (no usable multiscales attribute: {error!r}); "
            "give an image of OME-Zarr 0.4 or 0.5, such as convert writes"
        ) from error
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"{where}: the level path {path!r} leads out of the store")
    return Multiscale(tuple(map(str, axes)), tuple(units), paths, scales, translation, labels)


def voxel_size_problem(voxel_size: tuple[float, float, float]) -> str | None:
    """Say what is wrong with a voxel size, in µm, order z, y, x; None if nothing."""
    for axis, size in zip("zyx", voxel_size, strict=True):
        if not FINEST <= size <= COARSEST:
            return (
                f"voxels are {size:g} µm along {axis}, and must be {FINEST:g} to {COARSEST:g} µm; "
                "check the unit"
            )
    return None


def unit_in_micrometres(unit: str | None) -> float | None:
    """Return the length of a unit in µm, or None if it is none that OME-Zarr knows."""
    return UNITS.get(unit) if isinstance(unit, str) else None


def _scale(
    transformations: list[dict[str, Any]], default: list[float] | None = None
) -> list[float]:
    scales: list[list[float]] = [t["scale"] for t in transformations if t["type"] == "scale"]
    if not scales and default is None:
        raise KeyError("scale")
    return scales[0] if scales else default or []


def _translation(transformations: list[dict[str, Any]], axes: int) -> tuple[float, ...]:
    found = (t["translation"] for t in transformations if t["type"] == "translation")
    return tuple(float(t) for t in next(found, [0.0] * axes))
