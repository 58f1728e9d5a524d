"""Planes of TIFF files: opened with a check that they are whole, and read in part."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError, IsosrError


class _Complaints(logging.Handler):
    """Collects what tifffile says of a damaged file; it only logs that, and goes on."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file.

    Raises
    ------
    InputError
        When it can't be read as TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except (tifffile.TiffFileError, OSError) as error:
        if isinstance(error, IsosrError):
            raise
        raise InputError(
            f"{path} can't be read as TIFF ({error}): it is damaged, cut short or of another "
            "format; copy it again from the microscope"
        ) from error


@contextmanager
def open_whole_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file whose directories and pixel data are all there.

    Raises
    ------
    InputError
        When the file is damaged or was cut short.
    """
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(complaints)
    try:
        with open_tiff(path) as tif:
            _check_whole(tif, path, complaints.messages)
            yield tif
    finally:
        logger.removeHandler(complaints)
        logger.propagate = propagate


def _check_whole(tif: tifffile.TiffFile, path: Path, complaints: list[str]) -> None:
    size = path.stat().st_size
    needed = 0
    for page in tif.pages:
        ends = (a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        needed = max(needed, *ends, 0)
    for series in tif.series:
        if series.dataoffset is not None:
            needed = max(needed, series.dataoffset + series.nbytes)
    if complaints or needed > size:
        detail = complaints[0] if complaints else f"its pixels need {needed} bytes"
        raise InputError(
            f"{path} is cut short or damaged: it has {size} bytes, and {detail}; "
            "copy it again from the microscope"
        )


def read_page(
    page: tifffile.TiffPage | tifffile.TiffFrame, rows: slice, columns: slice
) -> NDArray[Any]:
    """Read a part of a plane, decoding only the strips or tiles that it lies in.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
        Of one sample a pixel; its file is open.
    rows, columns : slice
        With start and stop in the plane.

    Returns
    -------
    ndarray, (rows, columns)
        In the byte order of the file.

    Raises
    ------
    InputError
        When the data can't be decoded.
    """
    file, like = page.parent.filehandle, page.keyframe
    if like.is_memmappable:
        plane: NDArray[Any] = file.memmap_array(
            page.parent.byteorder + like.dtype.char, like.shape, page.dataoffsets[0]
        )
        return np.array(plane[rows, columns])
    out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), like.dtype)
    indices = _segments(like, rows, columns)
    offsets = [page.dataoffsets[i] for i in indices]
    counts = [page.databytecounts[i] for i in indices]
    try:
        for data, index in file.read_segments(offsets, counts, indices):
            segment, position, shape = like.decode(data, index, jpegtables=like.jpegtables)
            if segment is not None:
                segment = segment[0, : shape[1], : shape[2], 0]
                _paste(out, segment, position[2] - rows.start, position[3] - columns.start)
    except (ValueError, RuntimeError, tifffile.TiffFileError) as error:
        raise InputError(
            f"{file.path}: page {page.index} can't be decoded ({error}); "
            "copy the file again from the microscope"
        ) from error
    return out


def _segments(page: tifffile.TiffPage, rows: slice, columns: slice) -> list[int]:
    """Return the numbers of the strips or tiles that hold a part of a plane."""
    height, width = page.shape
    if page.is_tiled:
        length, across = page.tilelength, page.tilewidth
    else:
        length, across = min(page.rowsperstrip, height), width
    per_row = -(-width // across)
    return [
        row * per_row + column
        for row, column in itertools.product(
            range(rows.start // length, -(-rows.stop // length)),
            range(columns.start // across, -(-columns.stop // across)),
        )
    ]


def _paste(out: NDArray[Any], segment: NDArray[Any], row: int, column: int) -> None:
    """Copy the part of a segment at (row, column) that lies in `out`."""
    top, left = max(row, 0), max(column, 0)
    bottom = min(row + segment.shape[0], out.shape[0])
    right = min(column + segment.shape[1], out.shape[1])
    if bottom > top and right > left:
        out[top:bottom, left:right] = segment[
            top - row : bottom - row, left - column : right - column
        ]
