"""Arrays of Zarr v2, Zarr v3, OME-Zarr 0.4 and 0.5, and N5, read in part by tensorstore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.base import numbered_channels
from isosr_pipeline.sources.calibration import n5_voxel_size, positive_lengths
from isosr_pipeline.sources.containers import Node, images, parents, read_node, root_of
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.sources.layout import Layout, check_unchanged, lay_out
from isosr_pipeline.sources.selection import SEPARATOR, Selection, shown, the_only
from isosr_pipeline.store.intensity import check_dtype
from isosr_pipeline.store.metadata import read_own
from isosr_pipeline.store.multiscale import Multiscale, read_multiscale, unit_in_micrometres
from isosr_pipeline.store.tensorstores import FAILURES, Driver, open_tensorstore

_WHAT = "3D or 4D array"
_N5_AXES = {3: "xyz", 4: "xyzc"}


@dataclass(frozen=True)
class ArraySource:
    """One array of a Zarr or N5 container; see `Source` for the attributes.

    Parameters
    ----------
    name : str
        Of the array in the container; empty if it is the array itself.
    driver : {"zarr3", "zarr", "n5"}
        Its format.
    layout : Layout
        Of the array as tensorstore indexes it: N5 in the order x, y, z.
    """

    path: Path
    selection: Selection
    name: str
    driver: Driver
    layout: Layout
    dtype: np.dtype[np.generic]
    voxel_size: tuple[float, float, float] | None
    channels: tuple[str, ...]
    grain: Zyx

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return self.layout.shape

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Chunks that are not there hold the fill value, as the formats define.

        Raises
        ------
        InputError
            When a chunk can't be decoded, or the array is not what it was when it was opened.
        OSError
            When another attempt may succeed.
        """
        where = _where(self.path, self.name)
        store = _open(self.path / self.name, self.driver, where)
        found = (tuple(store.shape), store.dtype.numpy_dtype)
        check_unchanged(found, (self.layout.lengths, self.dtype), where)
        try:
            part = store[self.layout.index(channel, box)].read().result()
        except FAILURES as error:
            raise_unless_damage(error, where)
            raise InputError(
                f"{where}, {box} can't be read ({_short(error)}): a chunk is damaged or "
                "encoded in an unknown way; copy it again"
            ) from error
        return np.ascontiguousarray(self.layout.arranged(np.asarray(part)))


def open_array_source(path: Path, selection: Selection) -> ArraySource:
    """Open an array of a Zarr or N5 container, or level 0 of an OME-Zarr image, as a source.

    Parameters
    ----------
    path : Path
        Folder.
    selection : Selection

    Raises
    ------
    InputError
        When there is no such array, or several and none is named; or it is damaged, leads out of
        the container, is no volume, or a time series of which no point was picked.
    """
    path, name = root_of(path)
    node = _find(path, _join(name, selection.array or ""))
    group, level = _image_of(path, node)
    if group is not None:
        own = read_own(group.attributes, _where(path, group.name))
        if own is not None and not own.complete:
            raise InputError(
                f"{_where(path, group.name)} is not complete: finish it first, with the command "
                "that made it and --resume"
            )
    image = read_multiscale(group.attributes, _where(path, group.name)) if group else None
    if node.driver is None and group is not None and image is not None:
        node = _level_0(path, group, image.paths[0])
    return _source(path, node, image, level, selection.time)


def _find(path: Path, name: str) -> Node:
    """Return the array or image of a name, or the only one in the group of that name."""
    node = read_node(path, name)
    if node is None:
        raise InputError(f"{path} has no array {name!r}; it has {shown(images(path))}")
    if node.driver is None and not node.is_image:
        node = read_node(path, the_only(images(path, name), path, _WHAT)) or node
    return node


def _image_of(path: Path, node: Node) -> tuple[Node | None, int]:
    """Return the OME-Zarr image that a node is or is a level of, if any, and which level."""
    if node.is_image:
        return node, 0
    for group in parents(path, node.name):
        if group.is_image:
            levels = read_multiscale(group.attributes, _where(path, group.name)).paths
            names = [_join(group.name, level) for level in levels]
            return (group, names.index(node.name)) if node.name in names else (None, 0)
    return None, 0


def _level_0(path: Path, group: Node, level: str) -> Node:
    node = read_node(path, _join(group.name, level))
    if node is None or node.driver is None:
        raise InputError(
            f"{_where(path, group.name)} has no array {level!r}, which its metadata name as a "
            "level; it is cut short: copy it again"
        )
    return node


def _source(
    path: Path, node: Node, image: Multiscale | None, level: int, time: int | None
) -> ArraySource:
    where = _where(path, node.name)
    driver = node.driver or "zarr3"
    store = _open(path / node.name, driver, where)
    layout = lay_out(_axes(node, image), store.shape, time, where)
    labels = image.labels if image else ()
    count = layout.shape[0]
    return ArraySource(
        path=path,
        selection=Selection(array=node.name or None, time=layout.time if layout.has_time else None),
        name=node.name,
        driver=driver,
        layout=layout,
        dtype=check_dtype(store.dtype.numpy_dtype, where),
        voxel_size=_voxel_size(path, node, image, level),
        channels=labels if len(labels) == count and all(labels) else numbered_channels(count),
        grain=layout.grain(store.chunk_layout.read_chunk.shape),
    )


def _axes(node: Node, image: Multiscale | None) -> str | None:
    if image is not None:
        return "".join(image.axes)
    if node.driver == "n5":
        return _N5_AXES.get(len(node.shape))
    names = [name.lower() for name in node.dimensions]
    return "".join(names) if names and set(names) <= set("tczyx") else None


def _voxel_size(
    path: Path, node: Node, image: Multiscale | None, level: int
) -> tuple[float, float, float] | None:
    if image is not None:
        lengths = zip(image.axes, image.scales[level], image.units, strict=True)
        sizes = {a: s * (unit_in_micrometres(u) or 0.0) for a, s, u in lengths}
        return positive_lengths([sizes.get(axis) for axis in "zyx"])
    if node.driver == "n5":
        above = [group.attributes for group in parents(path, node.name)]
        return n5_voxel_size([node.attributes, *above])
    return positive_lengths(node.attributes.get("element_size_um"))


def _open(folder: Path, driver: Driver, where: str) -> ts.TensorStore:
    try:
        return open_tensorstore(folder, driver)
    except FAILURES as error:
        raise_unless_damage(error, where)
        raise InputError(
            f"{where} can't be opened ({_short(error)}): its metadata are damaged, or it is "
            "encoded in a way that is not known; copy it again, or save it with zarr-python"
        ) from error


def _short(error: Exception) -> str:
    """Return what tensorstore says of an error, without its own specification of the array."""
    return str(error).split(" [tensorstore_spec=")[0].split(" [source locations=")[0]


def _where(path: Path, name: str) -> str:
    return f"{path}{SEPARATOR}{name}" if name else str(path)


def _join(group: str, name: str) -> str:
    return f"{group}/{name}".strip("/")
