"""Regions of interest, as a user writes them: ``"0:100,20:220,:"`` or ``"10:60.5,0:200,:um"``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.isotropic import IsotropicView

_UNIT = re.compile(r"\s*(?:um|µm|μm)\s*$")
_PARTS = 2
_ROUNDING = 1e-6
"""Of a voxel."""

Extent = tuple[float | None, float | None]


class RegionOfInterest(BaseModel):
    """A box of a volume, in voxels of its isotropic grid or in µm.

    Attributes
    ----------
    extents : tuple of 3 pairs of float or None
        Along z, y, x: where it begins and where it ends, in voxels (not included) or µm; None: at
        the border of the volume.
    in_um : bool
        Whether they are positions in µm, as `info` and viewers show them, not voxels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    extents: tuple[Extent, Extent, Extent]
    in_um: bool = False

    @model_validator(mode="after")
    def _check(self) -> RegionOfInterest:
        for axis, (start, stop) in zip(AXES, self.extents, strict=True):
            if start is not None and stop is not None and not start < stop:
                raise ValueError(f"{axis} {start:g}:{stop:g} is empty: give START:STOP, rising")
            for value in (start, stop):
                if value is None or self.in_um:
                    continue
                if value != int(value) or value < 0:
                    raise ValueError(
                        f"{axis} {value:g} is no voxel: give whole numbers from 0, or lengths in "
                        "µm with um at the end, as in 10:60.5,0:200,:um"
                    )
        return self

    def __str__(self) -> str:
        """Write it as a user would."""
        parts = (
            ":".join("" if value is None else f"{value:g}" for value in extent)
            for extent in self.extents
        )
        return ",".join(parts) + ("um" if self.in_um else "")

    def box(self, view: IsotropicView, origin: tuple[float, float, float]) -> Box:
        """Return the voxels of the isotropic grid that it holds.

        Parameters
        ----------
        view : IsotropicView
        origin : tuple of 3 floats
            Centre of the volume's first voxel in µm, order z, y, x.

        Raises
        ------
        InputError
            When it reaches beyond the volume, naming the axis.
        """
        found = []
        for axis, extent, length, size, first in zip(
            AXES, self.extents, view.shape, view.voxel_size, origin, strict=True
        ):
            start, stop = extent
            if self.in_um:
                # A voxel belongs to it where its centre does; positions are rounded when written.
                start, stop = (
                    None if value is None else math.ceil((value - first) / size - _ROUNDING)
                    for value in extent
                )
            a = 0 if start is None else int(start)
            b = length if stop is None else int(stop)
            if not 0 <= a < b <= length:
                last = first + (length - 1) * size
                raise InputError(
                    f"roi is {self}: along {axis} that is voxel {a} to {b} of {length} on the "
                    f"isotropic grid of {view.volume.path}, which reaches from {first:g} to "
                    f"{last:g} µm; give a part of it"
                )
            found.append((a, b))
        return Box(Zyx(*(a for a, _ in found)), Zyx(*(b for _, b in found)))


def _parsed(value: Any) -> Any:
    """Accept text; anything else is left to the model."""
    if not isinstance(value, str):
        return value
    text = _UNIT.sub("", value)
    parts = text.split(",")
    if len(parts) != len(AXES):
        raise ValueError("give three ranges, Z0:Z1,Y0:Y1,X0:X1; a lone : is all of an axis")
    return {"extents": tuple(_extent(part) for part in parts), "in_um": text != value}


def _extent(text: str) -> Sequence[float | None]:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != _PARTS:
        raise ValueError(f"{text!r} is no range: give START:STOP, such as 0:100, or a lone :")
    try:
        values = [float(part) if part else None for part in parts]
    except ValueError:
        values = [math.nan]
    if any(value is not None and not math.isfinite(value) for value in values):
        raise ValueError(f"{text!r} is no range of numbers: give START:STOP, such as 0:100")
    return values


Roi = Annotated[RegionOfInterest, BeforeValidator(_parsed)]
