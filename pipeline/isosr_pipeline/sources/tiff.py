"""Multi-page TIFF files: plain, BigTIFF, OME-TIFF and ImageJ hyperstacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.base import numbered_channels
from isosr_pipeline.sources.calibration import tiff_voxel_size
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.sources.layout import Layout, lay_out
from isosr_pipeline.sources.pages import (
    check_grey,
    grain_of,
    open_tiff,
    open_whole_tiff,
    page_at,
    read_page,
)
from isosr_pipeline.sources.raw import RawPlane
from isosr_pipeline.sources.selection import Selection
from isosr_pipeline.store.intensity import check_dtype

SUFFIXES = (".tif", ".tiff")

# Kinds of series of which tifffile uses the directories without a correction.
_PLAIN = {"generic", "imagej", "ome", "shaped", "uniform"}

_UNNAMED = "QI"
"""Axes that files without metadata have: their pages are z."""


@dataclass(frozen=True)
class TiffSource:
    """One TIFF file; see `Source` for the attributes.

    Parameters
    ----------
    layout : Layout
        Of the planes in the file; its last axes are y and x.
    offset : int or None
        Where the pixels begin, if they are uncompressed and without gaps.
    byteorder : str
        Of the file, ``"<"`` or ``">"``.
    directories : tuple of int
        Where the directory of each plane is in the file, so that no read has to look for it;
        empty where that isn't known.
    """

    path: Path
    selection: Selection
    layout: Layout
    dtype: np.dtype[np.generic]
    voxel_size: tuple[float, float, float] | None
    channels: tuple[str, ...]
    grain: Zyx
    offset: int | None
    byteorder: str
    directories: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return self.layout.shape

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Raises
        ------
        InputError
            When the file has vanished, was cut short, or can't be decoded.
        OSError
            When another attempt may succeed.
        """
        zs, rows, columns = box.slices
        planes = [self._plane(channel, z) for z in range(zs.start, zs.stop)]
        out = np.empty(box.shape, self.dtype)
        if self.offset is None:
            with open_tiff(self.path) as tif:
                for target, plane in zip(out, planes, strict=True):
                    target[...] = read_page(self._page(tif, plane), rows, columns)
            return out
        try:
            with self.path.open("rb") as file:
                for target, plane in zip(out, planes, strict=True):
                    raw = self._raw(self.offset, plane)
                    raw.read(file.fileno(), target, rows, columns, self.path)
        except OSError as error:
            raise_unless_damage(error, self.path)
            raise
        return out

    def _raw(self, offset: int, plane: int) -> RawPlane:
        height, width = self.layout.lengths[-2:]
        begin = offset + plane * height * width * self.dtype.itemsize
        return RawPlane(begin, width, self.dtype, self.byteorder)

    def _page(self, tif: tifffile.TiffFile, plane: int) -> Any:
        if not self.directories:
            return _planes(tif)[plane]
        return page_at(tif, plane, self.directories[plane])

    def _plane(self, channel: int, z: int) -> int:
        along = {"t": self.layout.time, "c": channel, "z": z}
        position = tuple(along[axis] for axis in self.layout.axes[:-2])
        return int(np.ravel_multi_index(position, self.layout.lengths[:-2]))


def open_tiff_source(path: Path, selection: Selection) -> TiffSource:
    """Open a TIFF file as a source.

    Parameters
    ----------
    path : Path
    selection : Selection
        Only its time means anything for a TIFF file.

    Raises
    ------
    InputError
        When it is damaged, cut short, a time series of which no point was picked, several images,
        in colour, or of an unsupported dtype.
    """
    with open_whole_tiff(path) as tif:
        layout = _layout(tif, path, selection.time)
        series = tif.series[0]
        check_grey(series.keyframe, path)
        contiguous = len(tif.series) == 1 and series.dataoffset is not None
        if not contiguous:
            _check_planes(_planes(tif), layout, path)
        return TiffSource(
            path=path,
            selection=Selection(time=layout.time if layout.has_time else None),
            layout=layout,
            dtype=check_dtype(series.dtype, str(path)),
            voxel_size=tiff_voxel_size(tif),
            channels=numbered_channels(layout.shape[0]),
            grain=grain_of(series.keyframe),
            offset=series.dataoffset if contiguous else None,
            byteorder=tif.byteorder,
            directories=() if contiguous else _directories(tif),
        )


def _planes(tif: tifffile.TiffFile) -> Any:
    """Return the planes in file order: those of the series, or all pages of a plain file."""
    return tif.series[0].pages if len(tif.series) == 1 else tif.pages


def _directories(tif: tifffile.TiffFile) -> tuple[int, ...]:
    """Return where the planes' directories are, if all are in this file and as written."""
    planes = _planes(tif)
    own = all(page.parent is tif for page in planes)
    plain = {series.kind for series in tif.series} <= _PLAIN
    return tuple(int(page.offset) for page in planes) if own and plain else ()


def _check_planes(planes: Any, layout: Layout, path: Path) -> None:
    """Refuse a file that doesn't hold each plane that its metadata tell of as a page."""
    found = [page for page in planes if page is not None]
    count = int(np.prod(layout.lengths[:-2]))
    if len(found) != count or len(planes) != count:
        raise InputError(
            f"{path} is {count} planes by its metadata, and {len(found)} of them are in it; copy "
            "it again with all files that belong to it, or save it anew in ImageJ"
        )
    for page in found:
        if page.shape != layout.lengths[-2:]:
            raise InputError(
                f"{path}: page {page.index} has shape {page.shape}, and a plane {layout.axes[-2:]} "
                f"of the image has {layout.lengths[-2:]}; save it anew in ImageJ, a plane a page"
            )


def _layout(tif: tifffile.TiffFile, path: Path, time: int | None) -> Layout:
    """Return axes among t, c, z, y, x in the order of the file, and their lengths."""
    series = tif.series[0]
    axes, shape = series.axes, series.shape
    if len(tif.series) > 1:
        if any((s.shape, s.dtype) != (series.shape, series.dtype) for s in tif.series):
            raise InputError(
                f"{path} holds {len(tif.series)} images of different shapes; "
                "save the one to convert as a file of its own"
            )
        if series.ndim != 2:
            raise InputError(
                f"{path} holds {len(tif.series)} images of axes {axes} and shape {shape}, of which "
                "one can be converted; save each as a file of its own"
            )
        for page in tif.series:
            check_grey(page.keyframe, path)
        axes, shape = f"Z{axes}", (len(tif.series), *shape)
    elif series.ndim == 3 and 1 in shape and set(axes) <= set("QYX"):
        axes = "ZYX"  # tifffile's names for axes of length 1 say nothing
    for name in _UNNAMED:
        axes = axes.replace(name, "Z", 1) if "Z" not in axes else axes
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "CZYX"]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if sorted(set(axes)) != sorted(axes) or not set("YX") <= set(axes) <= set("TCZYX"):
        raise InputError(
            f"{path} has axes {axes} and shape {shape}; expected z, y, x and at most channels "
            "and time, in grey values"
        )
    if axes[-2:] != "YX":
        raise InputError(f"{path} has axes {axes}: y and x must come last; save it anew in ImageJ")
    if "Z" not in axes:
        axes, shape = f"{axes[:-2]}ZYX", (*shape[:-2], 1, *shape[-2:])
    return lay_out(axes.lower(), shape, time, str(path))
