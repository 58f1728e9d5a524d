"""Multi-page TIFF files: plain, BigTIFF, OME-TIFF and ImageJ hyperstacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.sources.calibration import tiff_voxel_size
from isosr_pipeline.sources.pages import open_tiff, open_whole_tiff, read_page
from isosr_pipeline.store.intensity import check_dtype

_UNNAMED = "QI"
"""Axes that files without metadata have: their pages are z."""


@dataclass(frozen=True)
class TiffSource:
    """One TIFF file; see `Source` for the attributes.

    Parameters
    ----------
    channel_first : bool
        Whether the planes of one channel follow each other in the file, rather than alternate.
    offset : int or None
        Where the pixels begin, if they are uncompressed and without gaps.
    byteorder : str
        Of the file, ``"<"`` or ``">"``.
    """

    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    voxel_size: tuple[float, float, float] | None
    channels: tuple[str, ...]
    channel_first: bool
    offset: int | None
    byteorder: str

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        zs, rows, columns = box.slices
        if self.offset is not None:
            return self._mapped(channel)[zs, rows, columns].astype(self.dtype)
        out = np.empty(box.shape, self.dtype)
        with open_tiff(self.path) as tif:
            pages = _planes(tif)
            for i, z in enumerate(range(zs.start, zs.stop)):
                out[i] = read_page(pages[self._plane(channel, z)], rows, columns)
        return out

    def _mapped(self, channel: int) -> NDArray[Any]:
        c, z, y, x = self.shape
        leading = (c, z) if self.channel_first else (z, c)
        dtype = self.dtype.newbyteorder(self.byteorder)  # type: ignore[arg-type]
        image = np.memmap(self.path, dtype, "r", self.offset or 0, (*leading, y, x))
        return image[channel] if self.channel_first else image[:, channel]

    def _plane(self, channel: int, z: int) -> int:
        channels, depth = self.shape[:2]
        return channel * depth + z if self.channel_first else z * channels + channel


def open_tiff_source(path: Path) -> TiffSource:
    """Open a TIFF file as a source.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        When it is damaged, cut short, a time series, in colour, or of an unsupported dtype.
    """
    with open_whole_tiff(path) as tif:
        axes, shape = _layout(tif, path)
        series = tif.series[0]
        contiguous = len(tif.series) == 1 and series.dataoffset is not None
        sizes = dict(zip(axes, shape, strict=True))
        count = sizes.get("C", 1)
        return TiffSource(
            path=path,
            shape=(count, sizes.get("Z", 1), sizes["Y"], sizes["X"]),
            dtype=check_dtype(series.dtype, str(path)),
            voxel_size=tiff_voxel_size(tif),
            channels=tuple(f"channel {i}" for i in range(count)),
            channel_first=axes.startswith("C"),
            offset=series.dataoffset if contiguous else None,
            byteorder=tif.byteorder,
        )


def _planes(tif: tifffile.TiffFile) -> Any:
    """Return the planes in file order: those of the series, or all pages of a plain file."""
    return tif.series[0].pages if len(tif.series) == 1 else tif.pages


def _layout(tif: tifffile.TiffFile, path: Path) -> tuple[str, tuple[int, ...]]:
    """Return axes among C, Z, Y, X in the order of the file, and their lengths."""
    series = tif.series[0]
    axes, shape = series.axes, series.shape
    if len(tif.series) > 1:
        if any((s.shape, s.dtype) != (series.shape, series.dtype) for s in tif.series):
            raise InputError(
                f"{path} holds {len(tif.series)} images of different shapes; "
                "save the one to convert as a file of its own"
            )
        if series.ndim == 2:
            axes, shape = f"Z{axes}", (len(tif.series), *shape)
    for name in _UNNAMED:
        axes = axes.replace(name, "Z", 1) if "Z" not in axes else axes
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "CZYX"]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if axes.count("T"):
        raise InputError(
            f"{path} is a time series (axes {axes}, shape {shape}); save one time point as a file"
        )
    if sorted(set(axes)) != sorted(axes) or not set("YX") <= set(axes) <= set("CZYX"):
        raise InputError(
            f"{path} has axes {axes} and shape {shape}; expected z, y, x and at most channels, "
            "in grey values"
        )
    if axes[-2:] != "YX":
        raise InputError(f"{path} has axes {axes}: y and x must come last; save it anew in ImageJ")
    return axes, shape
