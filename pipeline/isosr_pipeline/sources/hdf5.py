"""HDF5 files: one dataset of them, read in part."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.base import numbered_channels
from isosr_pipeline.sources.calibration import positive_lengths
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.sources.layout import Layout, check_unchanged, lay_out
from isosr_pipeline.sources.selection import SEPARATOR, Selection, shown, the_only
from isosr_pipeline.store.intensity import check_dtype

SUFFIXES = (".h5", ".hdf5", ".hdf")
_MOST_LINKS = 32

# What h5py raises for files that are damaged or hold what NumPy has no type for.
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, TypeError)

# HDF5 does one thing at a time in a process anyway; with the lock, no thread closes a file that
# another one has just opened.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Hdf5Source:
    """One dataset of an HDF5 file; see `Source` for the attributes.

    Parameters
    ----------
    layout : Layout
        Of the dataset.
    """

    path: Path
    selection: Selection
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

        Raises
        ------
        InputError
            When the dataset can't be decoded, or is not what it was when it was opened.
        """
        where = f"{self.path}{SEPARATOR}{self.selection.array}"
        with open_hdf5(self.path) as file:
            dataset = dataset_in(file, self.selection.array or "", self.path)
            found = (dataset.shape, dataset.dtype.newbyteorder("="))
            check_unchanged(found, (self.layout.lengths, self.dtype), where)
            part = read_part(dataset, self.layout.index(channel, box), f"{where}, {box}")
        return self.layout.arranged(part).astype(self.dtype)


def open_hdf5_source(path: Path, selection: Selection) -> Hdf5Source:
    """Open a dataset of an HDF5 file as a source.

    Parameters
    ----------
    path : Path
    selection : Selection

    Raises
    ------
    InputError
        When it is no HDF5 file, or cut short, or the dataset is not there, not the only one, or no
        volume.
    """
    with open_hdf5(path) as file:
        name = selection.array or the_only(_volumes(file), path, "3D or 4D dataset")
        dataset = dataset_in(file, name, path)
        where = f"{path}{SEPARATOR}{name}"
        layout = lay_out(_axes(dataset), dataset.shape, selection.time, where)
        check_filters(dataset, where)
        return Hdf5Source(
            path=path,
            selection=Selection(array=name, time=layout.time if layout.has_time else None),
            layout=layout,
            dtype=np.dtype(check_dtype(dataset.dtype, where).str),
            voxel_size=positive_lengths(dataset.attrs.get("element_size_um")),
            channels=numbered_channels(layout.shape[0]),
            grain=layout.grain(dataset.chunks),
        )


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 files do."""
    return bool(h5py.is_hdf5(path))


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; one at a time in a process.

    Yields
    ------
    h5py.File

    Raises
    ------
    InputError
        When it can't be read as HDF5, now or while it is open, is not there or may not be read.
    OSError
        When another attempt may succeed.
    """
    with _LOCK:
        try:
            with h5py.File(path, "r", locking="best-effort") as file:
                yield file
        except _FAILURES as error:
            raise_unless_damage(error, path)
            raise InputError(
                f"{path} can't be read as HDF5 ({error}): it is damaged, cut short, being "
                "written, or of another format; copy it again"
            ) from error


def dataset_in(file: Any, name: str, path: Path) -> Any:
    """Return a dataset whose voxels all lie in the file itself.

    Parameters
    ----------
    file : h5py.File
    name : str
    path : Path
        Of the file; messages name it.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    InputError
        When there is no such dataset, or it is elsewhere; a file from elsewhere must not make the
        program read other files.
    """
    found = follow(file, name, path)
    if not _is_dataset(found):
        names = shown(_datasets(file))
        raise InputError(f"{path} has no dataset {name!r}; it has {names}")
    virtual = found.virtual_sources() if found.is_virtual else []
    if found.external or any(source.file_name != "." for source in virtual):
        raise InputError(
            f"{path}{SEPARATOR}{name} keeps its voxels in other files; give the file that has them,"
            " or copy them together with h5repack"
        )
    return found


def follow(file: Any, name: str, path: Path) -> Any:
    """Return what a name leads to, without ever leaving the file; None if there is nothing.

    Raises
    ------
    InputError
        When a link on the way leads to another file, or links go round in a circle.
    """
    parts, node, links = _parts(name), file, 0
    walked: list[str] = []
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{path}: {name!r} is a link to another file, {link.filename!r}, which is not "
                "followed; give that file itself"
            )
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > _MOST_LINKS:
                raise InputError(f"{path}: {name!r} is a link that leads to itself; mend it")
            begin = [] if link.path.startswith("/") else walked
            node, parts, walked = file, [*begin, *_parts(link.path), *parts], []
            continue
        node = node[part]
        walked.append(part)
    return node


def read_part(dataset: Any, index: tuple[int | slice, ...], where: str) -> NDArray[Any]:
    """Read a part of a dataset.

    Raises
    ------
    InputError
        When it can't be decoded.
    OSError
        When another attempt may succeed.
    """
    try:
        return np.asarray(dataset[index])
    except _FAILURES as error:
        raise_unless_damage(error, where)
        raise InputError(
            f"{where} can't be read ({error}): the file is damaged; copy it again"
        ) from error


def check_filters(dataset: Any, where: str) -> None:
    """Refuse a dataset that is compressed in a way that can't be read here.

    Raises
    ------
    InputError
        Naming the filter.
    """
    plan = dataset.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{where} is compressed with filter {code} ({name.decode(errors='replace')}), "
                "which is not installed; install hdf5plugin and set HDF5_PLUGIN_PATH to its "
                "folder of plugins, or repack the file: h5repack -f GZIP=1 OLD NEW"
            )


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _datasets(file: Any) -> list[str]:
    """Return the names of the file's own datasets; links are not followed."""
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if _is_dataset(node) else None)
    return names


def _volumes(file: Any) -> list[str]:
    return [name for name in _datasets(file) if _is_volume(file[name])]


def _is_dataset(node: Any) -> bool:
    return isinstance(node, h5py.Dataset) and node.shape is not None


def _is_volume(dataset: Any) -> bool:
    return 3 <= dataset.ndim <= 5 and dataset.dtype.kind in "uif"


def _axes(dataset: Any) -> str | None:
    """Return the axes that a dataset names, as HDF5's dimension labels or ilastik's axistags."""
    labels = [str(dimension.label).lower() for dimension in dataset.dims]
    if all(label in tuple("tczyx") for label in labels):
        return "".join(labels)
    try:
        tags = json.loads(dataset.attrs.get("axistags", ""))
        return "".join(str(axis["key"]) for axis in tags["axes"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
