"""Imaris files (.ims): HDF5 with a dataset for every resolution level, time point and channel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.calibration import micrometres, positive_lengths
from isosr_pipeline.sources.hdf5 import check_filters, dataset_in, follow, open_hdf5, read_part
from isosr_pipeline.sources.layout import check_unchanged, pick_time
from isosr_pipeline.sources.selection import Selection
from isosr_pipeline.store.intensity import check_dtype

SUFFIXES = (".ims",)
_LEVEL = "DataSet/ResolutionLevel 0"
_IMAGE = "DataSetInfo/Image"


@dataclass(frozen=True)
class ImarisSource:
    """One time point of an Imaris file, at full resolution; see `Source` for the attributes.

    Parameters
    ----------
    padded : tuple of 3 ints
        Lengths of z, y, x as stored: whole chunks, of which `shape` is the image.
    """

    path: Path
    selection: Selection
    shape: tuple[int, int, int, int]
    padded: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    voxel_size: tuple[float, float, float] | None
    channels: tuple[str, ...]
    grain: Zyx

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Raises
        ------
        InputError
            When it can't be decoded, or is not what it was when the file was opened.
        """
        name = _data(self.selection.time or 0, channel)
        where = f"{self.path}, {name}"
        with open_hdf5(self.path) as file:
            dataset = dataset_in(file, name, self.path)
            found = (dataset.shape, dataset.dtype.newbyteorder("="))
            check_unchanged(found, (self.padded, self.dtype), where)
            part = read_part(dataset, box.slices, f"{where}, {box}")
        return part.astype(self.dtype)


def open_imaris_source(path: Path, selection: Selection) -> ImarisSource:
    """Open an Imaris file as a source.

    Parameters
    ----------
    path : Path
    selection : Selection
        Its array must be None: an Imaris file is one image.

    Raises
    ------
    InputError
        When it is no Imaris file, cut short, a time series of which no point was picked, or its
        channels differ.
    """
    if selection.array is not None:
        raise InputError(
            f"{path} is an Imaris file, which is one image; leave out ::{selection.array}"
        )
    with open_hdf5(path) as file:
        level = _group(file, _LEVEL, path)
        times = _numbered(level, "TimePoint")
        time = pick_time(times, selection.time, str(path))
        count = _numbered(_group(file, f"{_LEVEL}/TimePoint {time}", path), "Channel")
        found = [_channel(file, time, channel, path) for channel in range(count)]
        for channel, other in enumerate(found):
            if other != found[0]:
                raise InputError(
                    f"{path}: channel {channel} is {other[2]} of shape {other[0]} (stored as "
                    f"{other[1]}), and channel 0 is {found[0][2]} of shape {found[0][0]} (stored "
                    f"as {found[0][1]}); all must be alike: save them as files of their own"
                )
        shape, padded, dtype = found[0]
        return ImarisSource(
            path=path,
            selection=Selection(time=time),
            shape=(count, *shape),
            padded=padded,
            dtype=dtype,
            voxel_size=_voxel_size(_group(file, _IMAGE, path), shape),
            channels=tuple(_label(file, channel, path) for channel in range(count)),
            grain=Zyx(*(dataset_in(file, _data(time, 0), path).chunks or (1, 1, 1))),
        )


def _data(time: int, channel: int) -> str:
    return f"{_LEVEL}/TimePoint {time}/Channel {channel}/Data"


def _group(file: Any, name: str, path: Path) -> Any:
    group = follow(file, name, path)
    if not isinstance(group, h5py.Group):
        raise InputError(
            f"{path} has no group {name!r}, so it is no whole Imaris file; export it again"
        )
    return group


def _numbered(group: Any, kind: str) -> int:
    """Return how many members ``kind 0``, ``kind 1``, … a group has, without a gap."""
    matches = (re.fullmatch(rf"{kind} (\d+)", name) for name in group)
    numbers = sorted(int(match.group(1)) for match in matches if match)
    if not numbers or numbers != list(range(len(numbers))):
        raise InputError(
            f"{group.file.filename}: {group.name} has the members {kind} {numbers}, which don't "
            "count from 0 without a gap; export the file again"
        )
    return len(numbers)


def _channel(
    file: Any, time: int, channel: int, path: Path
) -> tuple[tuple[int, int, int], tuple[int, int, int], np.dtype[np.generic]]:
    """Return the shape of a channel, the shape it is stored with, and its dtype."""
    name = _data(time, channel)
    where = f"{path}, {name}"
    dataset = dataset_in(file, name, path)
    dtype = check_dtype(dataset.dtype, where)
    check_filters(dataset, where)
    stored = dataset.shape
    group = _group(file, name.removesuffix("/Data"), path)
    sizes = [_number(group, f"ImageSize{axis}") for axis in "ZYX"]
    if len(stored) != 3 or any(
        s is None or not s.is_integer() or not 1 <= s <= n
        for s, n in zip(sizes, stored, strict=False)
    ):
        raise InputError(
            f"{where} is stored with shape {stored}, and its image size z, y, x is {sizes}: it "
            "must be whole voxels, and lie in what is stored; export the file again"
        )
    z, y, x = (int(s) for s in sizes if s is not None)
    return (z, y, x), stored, np.dtype(dtype.str)


def _text(group: Any, name: str) -> str:
    """Return an attribute; Imaris writes texts and numbers as arrays of single characters."""
    value = np.asarray(group.attrs.get(name, ""))
    if value.dtype.kind == "S":
        return b"".join(value.ravel().tolist()).decode("utf-8", errors="replace").strip("\0 ")
    return str(value.item()) if value.size == 1 else ""


def _number(group: Any, name: str) -> float | None:
    try:
        return float(_text(group, name))
    except ValueError:
        return None


def _voxel_size(image: Any, shape: tuple[int, int, int]) -> tuple[float, float, float] | None:
    """Divide the extent of the image along z, y, x (2, 1, 0) by its voxels."""
    unit = micrometres(_text(image, "Unit") or "um")
    ends = [(_number(image, f"ExtMin{i}"), _number(image, f"ExtMax{i}")) for i in (2, 1, 0)]
    if unit is None or any(low is None or high is None for low, high in ends):
        return None
    pairs = zip(ends, shape, strict=True)
    return positive_lengths([((high or 0.0) - (low or 0.0)) * unit / n for (low, high), n in pairs])


def _label(file: Any, channel: int, path: Path) -> str:
    group = follow(file, f"DataSetInfo/Channel {channel}", path)
    name = _text(group, "Name") if isinstance(group, h5py.Group) else ""
    return name or f"channel {channel}"
