"""Tensorstore: how its arrays are opened here, and what its errors mean."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

import tensorstore as ts

Driver = Literal["zarr3", "zarr", "n5"]
"""Formats of arrays, as tensorstore names them."""

FAILURES = (ValueError, KeyError, IndexError, OSError, RuntimeError, NotImplementedError)
"""What tensorstore raises for files that are missing, damaged or encoded as it doesn't know."""

_FILES_AT_ONCE = 4

# Tensorstore raises ValueError for all troubles, with the system's number in its text.
_CODE = re.compile(r"os_error_code='(\d+)'")


def zarr_driver(zarr_format: Literal[2, 3]) -> Driver:
    """Return the driver for arrays of a version of Zarr."""
    return "zarr3" if zarr_format == 3 else "zarr"


@cache
def _context() -> ts.Context:
    """Return the limits of tensorstore in a process: workers are one a core already."""
    return ts.Context(
        {
            "data_copy_concurrency": {"limit": 1},
            "file_io_concurrency": {"limit": _FILES_AT_ONCE},
            # Each write then has a new file of its own, so that nothing of a killed one is left in
            # it. No two tasks write one shard.
            "file_io_locking": {"mode": "none"},
        }
    )


def open_tensorstore(folder: Path, driver: Driver, *, writable: bool = False) -> ts.TensorStore:
    """Open an array that is there.

    Parameters
    ----------
    folder : Path
    driver : {"zarr3", "zarr", "n5"}
    writable : bool
        For writing, and for that only.

    Raises
    ------
    Exception
        One of `FAILURES`.
    """
    # Tensorstore takes no other paths; one that is held open must stay as it is.
    path = folder if folder.is_absolute() and ".." not in folder.parts else folder.resolve()
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    return ts.open(spec, open=True, read=not writable, write=writable, context=_context()).result()


def error_number(error: Exception) -> int:
    """Return the operating system's number of an error, also of tensorstore's; 0 if it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    code = _CODE.search(str(error))
    return int(code.group(1)) if code else 0


def as_os_error(error: Exception, where: Path) -> OSError:
    """Return a failure to write as what the operating system would have raised.

    Parameters
    ----------
    error : Exception
        One of `FAILURES`.
    where : Path
        What was written.
    """
    number = error_number(error)
    if number:
        return OSError(number, os.strerror(number), str(where))
    return OSError(f"{where} can't be written: {error}")
