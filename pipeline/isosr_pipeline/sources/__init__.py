"""Images that can be converted, behind one small protocol: a new format is one file."""

from __future__ import annotations

from pathlib import Path

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.sources.base import Source
from isosr_pipeline.sources.slices import SUFFIXES, open_slice_folder
from isosr_pipeline.sources.tiff import open_tiff_source

__all__ = ["Source", "open_source"]


def open_source(path: Path) -> Source:
    """Open a file or folder as a source, and check as much of it as its headers tell.

    Parameters
    ----------
    path : Path
        A multi-page TIFF, or a folder of TIFF slices.

    Raises
    ------
    MissingInputError
        When there is nothing at `path`.
    InputError
        When it is of another format, damaged, cut short or inconsistent.
    """
    if not path.exists():
        raise MissingInputError(f"{path} does not exist; give a TIFF file or a folder of slices")
    if path.is_dir():
        return open_slice_folder(path)
    if path.suffix.lower() in SUFFIXES:
        return open_tiff_source(path)
    raise InputError(
        f"{path} has the suffix {path.suffix!r}; sources are {', '.join(SUFFIXES)} files and "
        "folders of such slices"
    )
