"""Folders of TIFF slices, one plane a file, as light-sheet microscopes write them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.pages import check_grey, grain_of, open_tiff, open_whole_tiff, read_page
from isosr_pipeline.sources.selection import Selection, shown
from isosr_pipeline.store.intensity import check_dtype

SUFFIXES = (".tif", ".tiff")
_READERS = 8
_SHOWN = 5


@dataclass(frozen=True)
class SliceFolder:
    """A folder of slices in natural order of their names; see `Source` for the attributes.

    Parameters
    ----------
    names : tuple of str
        File names, along z.
    grain : Zyx
        Of the first slice.
    """

    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    names: tuple[str, ...]
    grain: Zyx
    voxel_size: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ("channel 0",)
    selection: Selection = field(default_factory=Selection)

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Raises
        ------
        InputError
            When a slice has vanished, or is not what it was when the folder was opened.
        OSError
            When another attempt may succeed.
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
    return [(1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def open_slice_folder(path: Path) -> SliceFolder:
    """Open a folder of slices as a source, after a look at every file's header.

    Parameters
    ----------
    path : Path
        Files that are not TIFF, and hidden ones such as macOS's ``._slice0.tif``, are passed over.

    Raises
    ------
    InputError
        When there is no slice, one is missing in the series, names count two things, or a slice
        is cut short or of another shape or dtype than the first; the message names it.
    """
    names = sorted(
        (p.name for p in path.iterdir() if _is_slice(p)),
        key=natural_key,
    )
    if not names:
        folders = [p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
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
    shape, dtype, grain = headers[0]
    for name, header in zip(names, headers, strict=True):
        if header[:2] != (shape, dtype):
            raise InputError(
                f"{path / name} is {header[1]} of shape {header[0]}, and the first slice, "
                f"{names[0]}, is {dtype} of shape {shape}; all must be alike: "
                "move what belongs to another volume out of the folder"
            )
    return SliceFolder(
        path, (1, len(names), *shape), check_dtype(dtype, str(path)), tuple(names), grain
    )


def _is_slice(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _header(path: Path) -> tuple[tuple[int, int], np.dtype[np.generic], Zyx]:
    with open_whole_tiff(path) as tif:
        page = tif.pages[0]
        if len(tif.pages) != 1 or page.ndim != 2:
            raise InputError(
                f"{path} has {len(tif.pages)} pages of shape {page.shape}; a slice is one plane "
                "of grey values: convert multi-page files one by one"
            )
        check_grey(page, path)
        return page.shape, page.dtype, grain_of(page)


def _check_series(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder whose names count two things, or in which a number of the count is missing.

    Nothing is said of names that differ in more than numbers.
    """
    keys = [natural_key(name) for name in names]
    template = [part if kind == 0 else "" for kind, _, part in keys[0]]
    if any([p if kind == 0 else "" for kind, _, p in key] != template for key in keys):
        return
    varying = [i for i in range(len(template)) if len({key[i][1] for key in keys}) > 1]
    columns = [[key[i][1] for key in keys] for i in varying]
    if len(columns) > 1:
        # A number beside the count, such as a time or a position, changes along with it.
        columns = [c for c in columns if all(a < b for a, b in itertools.pairwise(c))]
        if not columns:
            ranges = " and ".join(_range(keys, i) for i in varying)
            raise InputError(
                f"{folder}: {len(varying)} numbers change in the names {names[0]} … {names[-1]}: "
                f"{ranges}; one must count the slices, along z: put every channel, tile or time "
                "point into a folder of its own (channels: --channel-pattern), or rename the files"
            )
    steps = [[b - a for a, b in itertools.pairwise(column)] for column in columns]
    if any(len(set(column)) == 1 for column in steps):
        return
    for numbers, column in zip(columns, steps, strict=True):
        _check_gaps(folder, names, numbers, column)


def _check_gaps(
    folder: Path, names: Sequence[str], numbers: Sequence[int], steps: Sequence[int]
) -> None:
    """Refuse gaps in numbers that count: most steps are one length, the others multiples of it."""
    step = min(steps)
    counts = Counter(steps)
    if step == 0 or 2 * counts[step] < len(steps) or any(n % step for n in counts):
        return
    count = sum(n // step - 1 for n in steps)
    missing = (
        low + i * step for low, n in zip(numbers, steps, strict=False) for i in range(1, n // step)
    )
    first = ", ".join(map(str, itertools.islice(missing, _SHOWN)))
    raise InputError(
        f"{folder}: {count} of the series {names[0]} … {names[-1]} missing: "
        f"number {first}{', …' if count > _SHOWN else ''}; copy them from the microscope, or, if "
        "the number counts something else than slices, rename the files to 0, 1, 2, …"
    )


def _range(keys: Sequence[list[tuple[int, int, str]]], i: int) -> str:
    """Describe a number that changes in the names, such as ``Z000 … Z009``."""
    letters = re.search(r"[^\W\d_]*$", keys[0][i - 1][2])
    label = letters.group() if letters else ""
    low, high = min(key[i][1:] for key in keys), max(key[i][1:] for key in keys)
    return f"{label}{low[1]} … {label}{high[1]}"
