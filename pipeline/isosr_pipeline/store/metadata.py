"""What a store says of itself: OME-Zarr's attributes, and the program's own."""

from __future__ import annotations

import math
import sys
import uuid
from typing import Any, Literal

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isosr_pipeline.errors import InputError
from isosr_pipeline.store.intensity import Window
from isosr_pipeline.store.multiscale import (
    UNITS,
    read_multiscale,
    unit_in_micrometres,
    voxel_size_problem,
)
from isosr_pipeline.store.pyramid import Level
from isosr_pipeline.store.spec import Ngff

ATTRIBUTE = "isosr"
AXES = ("c", "z", "y", "x")
CHANNEL_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
"""In which viewers show channels, from the first on, as hexadecimal RGB."""


class Provenance(BaseModel):
    """How a store was made.

    Attributes
    ----------
    step : str
        ``"convert"``, ``"restore"`` or ``"trust"``.
    source : str
        Path that was read.
    parameters : dict
        Of the step, as they were used.
    versions : dict of str to str
        Of the program and of the libraries that decide the result.
    command : list of str
        The program's arguments, for the record.
    figures : dict
        What the step measured, such as voxels clipped; empty until it is done.
    """

    model_config = ConfigDict(extra="forbid")

    step: str
    source: str
    parameters: dict[str, Any]
    versions: dict[str, str]
    command: list[str] = Field(default_factory=lambda: sys.argv[1:])
    figures: dict[str, Any] = Field(default_factory=dict)


class StoreAttributes(BaseModel):
    """The attribute ``isosr`` of a store.

    Attributes
    ----------
    format : int
        Version of this attribute; this program reads 1.
    id : str
        Made anew with the store, so that a ledger or a model can name it for certain.
    complete : bool
        False while regions are being filled.
    windows : list of list of Window
        For each channel, those that were recorded.
    history : list of Provenance
        Steps that led here, the latest last.
    files : int or None
        Of level 0, when the store was completed: what holds nothing but zeros has no file, so that
        one that is lost could not be told from it otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    complete: bool = False
    windows: list[list[Window]] = Field(default_factory=list)
    history: list[Provenance] = Field(default_factory=list)
    files: int | None = None


def write_ome(
    group: zarr.Group,
    *,
    ngff: Ngff,
    name: str,
    levels: list[Level],
    voxel_size: tuple[float, float, float],
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write the OME-Zarr multiscales attribute of a volume.

    Parameters
    ----------
    group : zarr.Group
        With arrays named ``"0"``, ``"1"``, … for the levels.
    ngff : {"0.4", "0.5"}
    name : str
    levels : list of Level
    voxel_size : tuple of 3 floats
        Of level 0, in µm, order z, y, x.
    origin : tuple of 3 floats
        Centre of level 0's first voxel, in µm, order z, y, x.
    """
    # Slow to import, and only a driver that creates a store needs it.
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.writer import write_multiscales_metadata

    datasets = [
        {
            "path": str(index),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, *level.scale(voxel_size)]},
                {
                    "type": "translation",
                    "translation": [0.0, *level.translation(voxel_size, origin)],
                },
            ],
        }
        for index, level in enumerate(levels)
    ]
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": axis, "type": "space", "unit": "micrometer"} for axis in AXES[1:]
    ]
    form = FormatV05() if ngff == "0.5" else FormatV04()
    write_multiscales_metadata(group, datasets, fmt=form, axes=axes, name=name)


def write_display(
    group: zarr.Group,
    labels: list[str],
    ranges: list[tuple[float, float]],
    limits: tuple[float, float],
) -> None:
    """Write the ``omero`` attribute: each channel's label, colour, and range for viewers.

    Parameters
    ----------
    group : zarr.Group
    labels : list of str
        One for each channel.
    ranges : list of tuple of 2 floats
        Intensities shown as black and as full colour, for each channel.
    limits : tuple of 2 floats
        Lowest and highest intensity that a viewer's slider reaches.
    """
    channels: Any = [
        {
            "label": label,
            "color": CHANNEL_COLORS[index % len(CHANNEL_COLORS)],
            "active": True,
            "window": {"start": low, "end": high, "min": limits[0], "max": limits[1]},
        }
        for index, (label, (low, high)) in enumerate(zip(labels, ranges, strict=True))
    ]
    omero = {"channels": channels}
    if "ome" in group.attrs:  # where OME-Zarr has its attributes since 0.5
        ome: dict[str, Any] = group.attrs["ome"]  # type: ignore[assignment]
        group.attrs["ome"] = {**ome, "omero": omero}
    else:
        group.attrs["omero"] = omero


def read_display(attributes: dict[str, Any], channel: int) -> tuple[float, float] | None:
    """Read the range in which viewers show a channel, as any program may have written it.

    Parameters
    ----------
    attributes : dict
        Of the group.
    channel : int

    Returns
    -------
    tuple of 2 floats or None
        None where there is none, or none that makes sense.
    """
    try:
        shown = attributes.get("ome", attributes)["omero"]["channels"][channel]["window"]
        low, high = float(shown["start"]), float(shown["end"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def display_limits(
    dtype: np.dtype[np.generic], ranges: list[tuple[float, float]]
) -> tuple[float, float]:
    """Return the lowest and highest intensity that a viewer's slider should reach.

    Parameters
    ----------
    dtype : numpy.dtype
        Integers have limits of their own.
    ranges : list of tuple of 2 floats
        In which channels of floats are shown; empty if that isn't known yet.
    """
    if dtype.kind in "ui":
        info = np.iinfo(dtype.name)
        return float(info.min), float(info.max)
    if not ranges:
        return 0.0, 1.0
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def read_ome(
    attributes: dict[str, Any], where: str
) -> tuple[list[str], tuple[float, float, float], tuple[float, float, float], list[str]]:
    """Read what the program needs of OME-Zarr 0.4 or 0.5 attributes.

    Parameters
    ----------
    attributes : dict
        Of the group.
    where : str
        Path that messages name.

    Returns
    -------
    paths : list of str
        Of the levels' arrays, finest first; none leads out of the store.
    voxel_size : tuple of 3 floats
        Of level 0 in µm, order z, y, x.
    origin : tuple of 3 floats
        Centre of level 0's first voxel in µm, order z, y, x.
    channels : list of str
        Labels; empty if there are none.

    Raises
    ------
    InputError
        When it is no OME-Zarr image, or its axes are not c, z, y, x.
    """
    image = read_multiscale(attributes, where)
    if image.axes != AXES:
        raise InputError(f"{where}: axes are {''.join(image.axes)}, and volumes have czyx")
    units = [_unit(axis, unit, where) for axis, unit in zip(AXES[1:], image.units[1:], strict=True)]
    z, y, x = (s * unit for s, unit in zip(image.scales[0][1:], units, strict=True))
    if problem := voxel_size_problem((z, y, x)):
        raise InputError(f"{where}: {problem} in its multiscales attribute")
    oz, oy, ox = (t * unit for t, unit in zip(image.translation[1:], units, strict=True))
    return list(image.paths), (z, y, x), (oz, oy, ox), list(image.labels)


def _unit(axis: str, unit: str | None, where: str) -> float:
    length = unit_in_micrometres(unit or "micrometer")
    if length is None:
        raise InputError(f"{where}: axis {axis} is in {unit!r}; known are {', '.join(UNITS)}")
    return length


def read_own(attributes: dict[str, Any], where: str) -> StoreAttributes | None:
    """Read the program's own attribute, or None in a store that another program wrote.

    Raises
    ------
    InputError
        When it is there but not of a known version.
    """
    if ATTRIBUTE not in attributes:
        return None
    try:
        return StoreAttributes.model_validate(attributes[ATTRIBUTE])
    except ValidationError as error:
        raise InputError(
            f"{where}: the attribute {ATTRIBUTE!r} is not one that this version reads "
            f"({error.error_count()} problems, first: {error.errors()[0]['msg']}); "
            "use the version that wrote the store"
        ) from error
