"""What a source is: an image in somebody's format, read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources.selection import Selection


class Source(Protocol):
    """An image that can be converted; small and picklable, so that it travels to workers.

    It holds no open file: `read` opens what it needs, and may be called in several threads.
    """

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the voxels, in native byte order."""
        ...

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """In µm, order z, y, x; None where the format doesn't say."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels, one for each channel."""
        ...

    @property
    def grain(self) -> Zyx:
        """What is read or decoded together, in voxels: to read a part of it costs all of it."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype.

        Raises
        ------
        InputError
            When the data can't be read or decoded, or are not what they were.
        OSError
            When the file system or network failed, and another attempt may succeed.
        """
        ...


def numbered_channels(count: int) -> tuple[str, ...]:
    """Return labels for channels that a format doesn't name."""
    return tuple(f"channel {i}" for i in range(count))


class SelectedSource(Source, Protocol):
    """A source as it was opened, which knows what of its path it is."""

    @property
    def selection(self) -> Selection:
        """What is read of `path`: the array that was found, the time point that was picked."""
        ...
