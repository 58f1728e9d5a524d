"""Folders of TIFF slices, one plane a file, as light-sheet microscopes write them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.sources.pages import open_tiff, open_whole_tiff, read_page
from isosr_pipeline.sources.selection import Selection, shown
from isosr_pipeline.store.intensity import check_dtype

SUFFIXES = (".tif", ".tiff")
_READERS = 8


@dataclass(frozen=True)
class SliceFolder:
    """A folder of slices in natural order of their names; see `Source` for the attributes.

    Parameters
    ----------
    names : tuple of str
        File names, along z.
    """

    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    names: tuple[str, ...]
    voxel_size: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ("channel 0",)
    selection: Selection = field(default_factory=Selection)

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Raises
        ------
        InputError
            When a slice has vanished, or is not what it was when the folder was opened.
        """
        zs, rows, columns = box.slices
        out = np.empty(box.shape, self.dtype)
        for i, name in enumerate(self.names[zs]):
            path = self.path / name
            with open_tiff(path) as tif:
                page = tif.pages[0]
                if page.shape != self.shape[2:]:
                    raise InputError(
                        f"{path} is {page.shape} now, and was {self.shape[2:]} when the folder "
                        "was opened; restore the file, then resume"
                    )
                out[i] = read_page(page, rows, columns)
        return out


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``slice10`` comes after ``slice9``."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdigit() else (0, 0, p) for p in parts]


def open_slice_folder(path: Path) -> SliceFolder:
    """Open a folder of slices as a source, after a look at every file's header.

    Parameters
    ----------
    path : Path
        Files that are not TIFF are passed over.

    Raises
    ------
    InputError
        When there is no slice, one is missing in the series, or one is cut short or of another
        shape or dtype than the first; the message names it.
    """
    names = sorted(
        (p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()),
        key=natural_key,
    )
    if not names:
        folders = [p.name for p in path.iterdir() if p.is_dir()]
        hint = (
            f"give the folder that has them, or, if its sub-folders ({shown(sorted(folders))}) are "
            "the channels, --channel-pattern '*'"
            if folders
            else "give the folder that has them"
        )
        raise InputError(f"{path} holds no TIFF slices ({', '.join(SUFFIXES)}); {hint}")
    _check_series(path, names)
    with ThreadPoolExecutor(_READERS) as pool:
        headers = list(pool.map(lambda name: _header(path / name), names))
    shape, dtype = headers[0]
    for name, header in zip(names, headers, strict=True):
        if header != headers[0]:
            raise InputError(
                f"{path / name} is {header[1]} of shape {header[0]}, and the first slice, "
                f"{names[0]}, is {dtype} of shape {shape}; all must be alike: "
                "move what belongs to another volume out of the folder"
            )
    return SliceFolder(path, (1, len(names), *shape), check_dtype(dtype, str(path)), tuple(names))


def _header(path: Path) -> tuple[tuple[int, int], np.dtype[np.generic]]:
    with open_whole_tiff(path) as tif:
        page = tif.pages[0]
        if len(tif.pages) != 1 or page.ndim != 2:
            raise InputError(
                f"{path} has {len(tif.pages)} pages of shape {page.shape}; a slice is one plane "
                "of grey values: convert multi-page files one by one"
            )
        return page.shape, page.dtype


def _check_series(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder in which the one number that counts the slices has a gap."""
    keys = [natural_key(name) for name in names]
    template = [part if kind == 0 else "" for kind, _, part in keys[0]]
    if any([p if kind == 0 else "" for kind, _, p in key] != template for key in keys):
        return
    varying = [i for i in range(len(template)) if len({key[i][1] for key in keys}) > 1]
    if len(varying) != 1:
        return
    numbers = [key[varying[0]][1] for key in keys]
    step = min(b - a for a, b in itertools.pairwise(numbers))
    missing = sorted(set(range(numbers[0], numbers[-1], max(step, 1))) - set(numbers))
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise InputError(
            f"{folder}: {len(missing)} of the series {names[0]} … {names[-1]} missing: "
            f"number {shown}; copy them from the microscope"
        )
