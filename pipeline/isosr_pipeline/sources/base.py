"""What a source is: an image in somebody's format, read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box


class Source(Protocol):
    """An image that can be converted; small and picklable, so that it travels to workers.

    Attributes
    ----------
    path : Path
        File or folder.
    shape : tuple of 4 ints
        c, z, y, x.
    dtype : numpy.dtype
        In native byte order.
    voxel_size : tuple of 3 floats or None
        In µm, order z, y, x; None where the format doesn't say.
    channels : tuple of str
        Labels, one for each channel.
    """

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[np.generic]: ...
    @property
    def voxel_size(self) -> tuple[float, float, float] | None: ...
    @property
    def channels(self) -> tuple[str, ...]: ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        ...
