"""Uncompressed pixels, read where they lie in a file: long reads, and no memory maps.

A memory map of a file that shrinks, or whose server is lost, ends the process; a read that fails
is an error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError

_NATIVE = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True)
class RawPlane:
    """A plane of uncompressed pixels in a file.

    Parameters
    ----------
    offset : int
        Of the first pixel, in bytes.
    width : int
        Of a row, in pixels.
    dtype : numpy.dtype
        In native byte order.
    byteorder : {"<", ">"}
        Of the file.
    """

    offset: int
    width: int
    dtype: np.dtype[np.generic]
    byteorder: str

    def read(self, file: int, out: NDArray[Any], rows: slice, columns: slice, path: Path) -> None:
        """Read a part of the plane.

        Parameters
        ----------
        file : int
            Descriptor of the open file; its position is not used.
        out : ndarray, (rows, columns)
            Contiguous, of the plane's dtype; it is filled.
        rows, columns : slice
            With start and stop in the plane.
        path : Path
            That messages name.

        Raises
        ------
        InputError
            When the file ends before.
        OSError
            When the system can't read it.
        """
        begin, width = rows.start * self.width, columns.stop - columns.start
        # Whole rows are one long read; of long rows, short parts are read one by one.
        if width == self.width:
            self._fill(file, out, begin, path)
        elif 2 * width > self.width:
            whole = np.empty((len(out), self.width), self.dtype)
            self._fill(file, whole, begin, path)
            out[...] = whole[:, columns]
        else:
            for i, row in enumerate(out):
                self._fill(file, row, begin + i * self.width + columns.start, path)
        if self.byteorder != _NATIVE:
            out.byteswap(inplace=True)

    def _fill(self, file: int, out: NDArray[Any], pixel: int, path: Path) -> None:
        """Fill a contiguous array from a pixel on."""
        begin = self.offset + pixel * self.dtype.itemsize
        rest = out.reshape(-1).view(np.uint8).data
        while rest:
            count = os.preadv(file, [rest], begin + out.nbytes - len(rest))
            if count == 0:
                raise InputError(
                    f"{path} is cut short: it ends before byte {begin + out.nbytes}, and was "
                    "whole when it was opened; copy it again, then resume"
                )
            rest = rest[count:]
