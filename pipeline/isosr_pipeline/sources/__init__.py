"""Images that can be converted, behind one small protocol: a new format is one file."""

from __future__ import annotations

from pathlib import Path

from isosr_pipeline.errors import InputError, IsosrError, MissingInputError
from isosr_pipeline.sources.base import SelectedSource, Source
from isosr_pipeline.sources.failures import unreadable
from isosr_pipeline.sources.selection import SEPARATOR, Selection, split_location

__all__ = ["SelectedSource", "Selection", "Source", "open_source", "split_location"]


def open_source(location: str | Path, selection: Selection | None = None) -> SelectedSource:
    """Open a file or folder as a source, and check as much of it as its headers tell.

    Parameters
    ----------
    location : str or Path
        A TIFF, HDF5 or Imaris file; a folder of TIFF slices; a Zarr, OME-Zarr or N5 folder.
        ``path::array`` names an array in an HDF5, Zarr or N5 container.
    selection : Selection, optional
        The time point and the channels' sub-folders; its array, if `location` doesn't name one.

    Raises
    ------
    MissingInputError
        When there is nothing at the path.
    InputError
        When it is of another format, damaged, cut short or inconsistent, or when an array or a
        time point has to be picked; also when it can't be read just now.
    """
    path, array = split_location(location)
    chosen = selection or Selection()
    asked = Selection(array or chosen.array, chosen.time, chosen.channel_pattern)
    try:
        if not path.exists():
            raise MissingInputError(
                f"{path} does not exist; give a TIFF, HDF5 or Imaris file, a folder of slices, or "
                "a Zarr or N5 folder"
            )
        return _open_folder(path, asked) if path.is_dir() else _open_file(path, asked)
    except OSError as error:
        if isinstance(error, IsosrError):
            raise
        raise unreadable(error, path) from error


def _open_folder(path: Path, asked: Selection) -> SelectedSource:
    # Each format's library is loaded when it is needed.
    from isosr_pipeline.sources.containers import is_container

    if is_container(path):
        from isosr_pipeline.sources.zarr_arrays import open_array_source

        _refuse(asked.channel_pattern, "--channel-pattern", f"{path} is a Zarr or N5 container")
        return open_array_source(path, asked)
    from isosr_pipeline.sources.channel_folders import open_channel_folders
    from isosr_pipeline.sources.layout import pick_time
    from isosr_pipeline.sources.slices import open_slice_folder

    _refuse(asked.array, f"{SEPARATOR}{asked.array}", f"{path} is a folder of slices")
    pick_time(1, asked.time, str(path))
    if asked.channel_pattern is not None:
        return open_channel_folders(path, asked.channel_pattern)
    return open_slice_folder(path)


def _open_file(path: Path, asked: Selection) -> SelectedSource:
    from isosr_pipeline.sources import hdf5, imaris, tiff

    _refuse(asked.channel_pattern, "--channel-pattern", f"{path} is a file")
    suffix = path.suffix.lower()
    if suffix in tiff.SUFFIXES:
        _refuse(asked.array, f"{SEPARATOR}{asked.array}", f"{path} is a TIFF file")
        return tiff.open_tiff_source(path, asked)
    if suffix in imaris.SUFFIXES:
        return imaris.open_imaris_source(path, asked)
    if suffix in hdf5.SUFFIXES or hdf5.is_hdf5(path):
        return hdf5.open_hdf5_source(path, asked)
    known = ", ".join((*tiff.SUFFIXES, *hdf5.SUFFIXES, *imaris.SUFFIXES))
    raise InputError(
        f"{path} has the suffix {path.suffix!r} and is no HDF5 file; sources are {known} files, "
        "folders of TIFF slices, and Zarr and N5 folders"
    )


def _refuse(given: str | None, option: str, why: str) -> None:
    """Refuse an option that means nothing for a source."""
    if given is not None:
        raise InputError(f"{why}, for which {option} means nothing; leave it out")
