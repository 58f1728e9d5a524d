"""How the axes of an array in a file become c, z, y, x, and which time point is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx

_KNOWN = set("tczyx")
_DEFAULT = {3: "zyx", 4: "czyx"}


@dataclass(frozen=True)
class Layout:
    """The axes of an array in the order of the file, and what is read of them.

    Parameters
    ----------
    axes : str
        Of t, c, z, y and x; z, y and x are always there.
    lengths : tuple of int
        In voxels, one for each axis.
    time : int
        Time point that is read; 0 where there is no axis t.
    """

    axes: str
    lengths: tuple[int, ...]
    time: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        sizes = dict(zip(self.axes, self.lengths, strict=True))
        return sizes.get("c", 1), sizes["z"], sizes["y"], sizes["x"]

    @property
    def has_time(self) -> bool:
        """Whether there is an axis t."""
        return "t" in self.axes

    def index(self, channel: int, box: Box) -> tuple[int | slice, ...]:
        """Return the index of a box in the array; `arranged` turns what it gives into z, y, x."""
        z, y, x = box.slices
        along: dict[str, int | slice] = {"t": self.time, "c": channel, "z": z, "y": y, "x": x}
        return tuple(along[axis] for axis in self.axes)

    def grain(self, chunk: Sequence[int | None] | None) -> Zyx:
        """Return the lengths of a chunk of the array along z, y, x; 1 where it has no chunks."""
        lengths = dict(zip(self.axes, chunk, strict=True)) if chunk else {}
        return Zyx(*(int(lengths.get(axis) or 1) for axis in "zyx"))

    def arranged(self, part: NDArray[Any]) -> NDArray[Any]:
        """Put the axes of a part that `index` gave in the order z, y, x."""
        spatial = [axis for axis in self.axes if axis in "zyx"]
        return part.transpose([spatial.index(axis) for axis in "zyx"])


def lay_out(axes: str | None, lengths: Sequence[int], time: int | None, where: str) -> Layout:
    """Make the layout of an array.

    Parameters
    ----------
    axes : str or None
        In the order of the file; None if the file doesn't name them: z, y, x or c, z, y, x.
    lengths : sequence of int
        One for each axis.
    time : int or None
        Time point that was asked for.
    where : str
        File and array that messages name.

    Raises
    ------
    InputError
        When it is no volume, or no time point, or one that isn't there, was picked of a series.
    """
    shape = tuple(int(n) for n in lengths)
    names = axes or _DEFAULT.get(len(shape))
    if names is None:
        raise InputError(
            f"{where} has {len(shape)} axes (shape {shape}) and doesn't name them; a volume has z, "
            "y, x or c, z, y, x: save it so, or as OME-Zarr, which names its axes"
        )
    if len(names) != len(shape) or len(set(names)) != len(names) or not set(names) <= _KNOWN:
        raise InputError(
            f"{where} has axes {names} and shape {shape}; known are t, c, z, y, x, each once"
        )
    if not set("zyx") <= set(names):
        raise InputError(
            f"{where} has axes {names} and shape {shape}; a volume needs z, y and x: give a stack"
        )
    if 0 in shape:
        raise InputError(f"{where} has shape {shape}, so there are no voxels in it; give another")
    count = dict(zip(names, shape, strict=True)).get("t", 1)
    return Layout(names, shape, pick_time(count, time, where))


def pick_time(count: int, time: int | None, where: str) -> int:
    """Return the time point to read.

    Parameters
    ----------
    count : int
        Time points that there are; 1 in a volume without an axis t.
    time : int or None
        What was asked for.
    where : str
        File and array that messages name.

    Raises
    ------
    InputError
        When none was picked of several, or one that isn't there.
    """
    if time is None and count > 1:
        raise InputError(
            f"{where} is a time series of {count} points; pick one with --time N, "
            f"from 0 to {count - 1}"
        )
    if time is not None and not 0 <= time < count:
        raise InputError(
            f"{where} has {count} time {'point' if count == 1 else 'points'}, and --time {time} "
            f"was asked for; {'leave it out' if count == 1 else f'give 0 to {count - 1}'}"
        )
    return time or 0


def check_unchanged(
    found: tuple[tuple[int, ...], np.dtype[Any]],
    opened: tuple[tuple[int, ...], np.dtype[Any]],
    where: str,
) -> None:
    """Refuse an array whose shape or dtype is not what it was when the source was opened.

    Raises
    ------
    InputError
        Naming both.
    """
    if found != opened:
        raise InputError(
            f"{where} is {found[1]} of shape {found[0]} now, and was {opened[1]} of shape "
            f"{opened[0]} when it was opened; restore the file, then resume"
        )
