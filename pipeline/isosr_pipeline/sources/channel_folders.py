"""Folders with one sub-folder of TIFF slices a channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.selection import Selection, shown
from isosr_pipeline.sources.slices import SliceFolder, natural_key, open_slice_folder


@dataclass(frozen=True)
class ChannelFolders:
    """A folder of folders of slices; see `Source` for the attributes.

    Parameters
    ----------
    folders : tuple of SliceFolder
        One a channel, in natural order of their names; all of one shape and dtype.
    """

    path: Path
    selection: Selection
    folders: tuple[SliceFolder, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return (len(self.folders), *self.folders[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the voxels, in native byte order."""
        return self.folders[0].dtype

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """None: slices don't say."""
        return self.folders[0].voxel_size

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the sub-folders."""
        return tuple(folder.path.name for folder in self.folders)

    @property
    def grain(self) -> Zyx:
        """What is read together: of the first folder's slices."""
        return self.folders[0].grain

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        return self.folders[channel].read(0, box)


def open_channel_folders(path: Path, pattern: str) -> ChannelFolders:
    """Open the sub-folders whose names match a pattern as the channels of one volume.

    Parameters
    ----------
    path : Path
    pattern : str
        Glob of names of sub-folders, such as ``"Ex_*"``.

    Raises
    ------
    InputError
        When none matches, or they don't hold equally many slices of one shape and dtype.
    """
    if pattern in ("", ".", "..") or "/" in pattern:
        raise InputError(
            f"--channel-pattern {pattern!r}: give a pattern of names of sub-folders of {path}, "
            "without slashes, such as 'Ex_*'"
        )
    names = _folders(path.glob(pattern))
    if not names:
        there = _folders(path.iterdir())
        raise InputError(
            f"{path} has no sub-folder that matches --channel-pattern {pattern!r}; "
            f"it has {shown(there)}"
        )
    folders = tuple(open_slice_folder(path / name) for name in names)
    first = folders[0]
    for other in folders:
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{other.path} is {other.dtype} of shape {other.shape[1:]}, and {first.path.name} "
                f"is {first.dtype} of shape {first.shape[1:]}; all channels must be alike: choose "
                "them with --channel-pattern, or convert them one by one"
            )
    return ChannelFolders(path, Selection(channel_pattern=pattern), folders)


def _folders(paths: Iterable[Path]) -> list[str]:
    """Return the names of the folders that are not hidden, in natural order."""
    names = (p.name for p in paths if p.is_dir() and not p.name.startswith("."))
    return sorted(names, key=natural_key)
