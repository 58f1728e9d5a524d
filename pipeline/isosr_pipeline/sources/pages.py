"""Planes of TIFF files: opened with a check that they are whole, and read in part."""

from __future__ import annotations

import itertools
import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.sources.raw import RawPlane

# What tifffile raises for damaged directories and metadata.
_FAILURES = (
    tifffile.TiffFileError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
)


class _Complaints(logging.Filter):
    """Keeps what tifffile says of a damaged file; it only logs that, and goes on.

    All threads log to one logger: each one keeps what it caused itself, and while it does not
    keep, its records are logged as ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own = threading.local()

    @contextmanager
    def kept(self) -> Iterator[list[str]]:
        """Yield the messages of this thread, which grow while it reads."""
        logging.getLogger("tifffile").addFilter(self)  # a second time, it does nothing
        before = getattr(self._own, "messages", None)
        messages: list[str] = []
        self._own.messages = messages
        try:
            yield messages
        finally:
            self._own.messages = before

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep an error, and let a record through only where nobody keeps."""
        messages = getattr(self._own, "messages", None)
        if messages is None:
            return True
        if record.levelno >= logging.ERROR:
            messages.append(record.getMessage())
        return False


_COMPLAINTS = _Complaints()


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file that has at least one page.

    Raises
    ------
    InputError
        When it can't be read as TIFF, now or while it is open, is not there or may not be read.
    OSError
        When another attempt may succeed.
    """
    with _opened(path) as tif:
        try:
            yield tif
        except (tifffile.TiffFileError, OSError) as error:
            raise_unless_damage(error, path)
            raise _unreadable(path, str(error)) from error


def _opened(path: Path) -> tifffile.TiffFile:
    try:
        tif = tifffile.TiffFile(path)
        try:
            tif.pages[0]
        except BaseException:
            tif.close()
            raise
    except IndexError as error:
        raise _unreadable(path, "it has no pages") from error
    except (*_FAILURES, OSError) as error:
        raise_unless_damage(error, path)
        raise _unreadable(path, str(error)) from error
    return tif


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} can't be read as TIFF ({reason}): it is damaged, cut short or of another format; "
        "copy it again from the microscope"
    )


@contextmanager
def open_whole_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file whose directories and pixel data are all there.

    Raises
    ------
    InputError
        When the file is damaged or was cut short, is not there or may not be read.
    OSError
        When another attempt may succeed.
    """
    with _COMPLAINTS.kept() as complaints, open_tiff(path) as tif:
        try:
            _check_whole(tif, path, complaints)
        except _FAILURES as error:
            raise_unless_damage(error, path)
            raise InputError(
                f"{path} is cut short or damaged: its directories can't be read ({error!r}); "
                "copy it again from the microscope"
            ) from error
        yield tif


def check_grey(page: tifffile.TiffPage | tifffile.TiffFrame, path: Path) -> None:
    """Refuse a plane whose numbers are not brightnesses.

    ImageJ writes brightnesses with the lookup table they were shown in as the palette.

    Raises
    ------
    InputError
        Naming what they are instead.
    """
    photometric = page.keyframe.photometric
    shown_by_imagej = page.parent.is_imagej or page.parent.is_ome
    if photometric == tifffile.PHOTOMETRIC.PALETTE and not shown_by_imagej:
        raise InputError(
            f"{path} has a palette: its numbers stand for colours, and voxels must be grey "
            "values; if they are brightnesses under a lookup table, save it anew in ImageJ after "
            "Image > Lookup Tables > Grays"
        )
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise InputError(
            f"{path} is inverted (photometric interpretation: white is zero), and in a volume "
            "black is zero; in ImageJ, choose Image > Lookup Tables > Grays, see that the signal "
            "is bright (else Edit > Invert), and save it anew"
        )


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


def page_at(tif: tifffile.TiffFile, index: int, offset: int) -> tifffile.TiffPage:
    """Return the page whose directory is at an offset in bytes, without a look at any other.

    Raises
    ------
    InputError
        When there is no directory now.
    """
    tif.filehandle.seek(offset)
    try:
        return tifffile.TiffPage(tif, index)
    except _FAILURES as error:
        raise _unreadable(Path(tif.filehandle.path), f"page {index}: {error}") from error


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

    Raises
    ------
    InputError
        When the data can't be decoded.
    """
    file, like = page.parent.filehandle, page.keyframe
    out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), like.dtype)
    if like.is_memmappable:
        plane = RawPlane(page.dataoffsets[0], like.shape[1], like.dtype, page.parent.byteorder)
        plane.read(file.fileno(), out, rows, columns, Path(file.path))
        return out
    try:
        indices = _segments(like, rows, columns)
        offsets = [page.dataoffsets[i] for i in indices]
        counts = [page.databytecounts[i] for i in indices]
        for data, index in file.read_segments(offsets, counts, indices):
            segment, position, shape = like.decode(data, index, jpegtables=like.jpegtables)
            if segment is not None:
                segment = segment[0, : shape[1], : shape[2], 0]
                _paste(out, segment, position[2] - rows.start, position[3] - columns.start)
    except _FAILURES as error:
        raise InputError(
            f"{file.path}: page {page.index} can't be decoded ({error}); "
            "copy the file again from the microscope"
        ) from error
    return out


def grain_of(page: tifffile.TiffPage | tifffile.TiffFrame) -> Zyx:
    """Return what is read or decoded together of planes like this one, in voxels."""
    like = page.keyframe
    if like.is_tiled:
        return Zyx(1, like.tilelength, like.tilewidth)
    height, width = like.shape[-2:]
    return Zyx(1, 1 if like.is_memmappable else min(like.rowsperstrip, height), width)


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
