"""Histograms gathered region by region, and the intensity windows found from them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict

from isosr_pipeline.errors import InputError

CONFOCAL = (0.03, 99.97)
"""Percentiles of the window for confocal volumes (Park et al. 2022), the default."""

LIGHT_SHEET = (3.0, 97.0)
"""Percentiles of the window for light-sheet volumes (Park et al. 2022)."""

SUPPORTED_DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
_FLOAT_KEY_BITS = 20
_PIECE = 1 << 20


class Window(BaseModel):
    """The two intensities that are 0 and 1 to a restorer.

    Attributes
    ----------
    percentiles : tuple of 2 floats
        Percentiles of the whole volume that `low` and `high` are.
    low, high : float
        In the units of the volume; `low` < `high`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    percentiles: tuple[float, float]
    low: float
    high: float


def check_dtype(dtype: DTypeLike, where: str) -> np.dtype[np.generic]:
    """Return the dtype in native byte order, or say that volumes can't have it.

    Parameters
    ----------
    dtype : dtype-like
    where : str
        File or store that the message names.

    Raises
    ------
    InputError
        When it is not one of `SUPPORTED_DTYPES`.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.name not in SUPPORTED_DTYPES:
        raise InputError(
            f"{where}: voxels are {native.name}, and volumes must be one of "
            f"{', '.join(SUPPORTED_DTYPES)}; save it as uint16 or float32"
        )
    return native


class Histogram:
    """Counts of intensities: exact for integers, to 0.05 % of the value for float32.

    A float is counted by the leading 20 bits of its order-preserving bit pattern, so that no range
    must be known beforehand and histograms of parts can be added. NaN and infinities don't count.

    Parameters
    ----------
    dtype : dtype-like
        One of `SUPPORTED_DTYPES`.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = check_dtype(dtype, "histogram")
        bits = _FLOAT_KEY_BITS if self.dtype.kind == "f" else 8 * self.dtype.itemsize
        self._lowest = int(np.iinfo(self.dtype.name).min) if self.dtype.kind in "ui" else 0
        self.counts: NDArray[np.int64] = np.zeros(1 << bits, dtype=np.int64)

    def add(self, values: NDArray[np.generic]) -> None:
        """Count all values of an array of the histogram's dtype and any shape."""
        flat = values.ravel()
        # In pieces that stay in the cache, since counting widens every value to 8 bytes.
        for begin in range(0, flat.size, _PIECE):
            keys = self._keys(flat[begin : begin + _PIECE])
            self.counts += np.bincount(keys, minlength=self.counts.size)

    def encode(self) -> str:
        """Return the counts as ASCII text, short where most are zero."""
        (keys,) = np.nonzero(self.counts)
        pairs = np.stack((np.diff(keys, prepend=0), self.counts[keys])).astype("<i8")
        return base64.b85encode(zlib.compress(pairs.tobytes(), level=6)).decode("ascii")

    def add_encoded(self, text: str) -> None:
        """Add counts that `encode` of another histogram of the same dtype returned."""
        raw = zlib.decompress(base64.b85decode(text))
        steps, counts = np.frombuffer(raw, dtype="<i8").reshape(2, -1)
        self.counts[np.cumsum(steps)] += counts

    def percentile(self, percent: float) -> float:
        """Return a percentile, interpolated linearly between neighbouring ranks.

        Parameters
        ----------
        percent : float
            Between 0 and 100.

        Returns
        -------
        float
            Equal to ``numpy.percentile`` of all values for integer dtypes; 0 if there are none.
        """
        cumulative = np.cumsum(self.counts)
        total = int(cumulative[-1])
        if total == 0:
            return 0.0
        rank = (total - 1) * percent / 100.0
        below = int(rank)
        ranks = [below, min(below + 1, total - 1)]
        low, high = self._values(np.searchsorted(cumulative, ranks, side="right"))
        return float(low + (high - low) * (rank - below))

    def window(self, percentiles: tuple[float, float]) -> Window:
        """Return the window between two percentiles; one intensity wide if the volume is flat."""
        low, high = (self.percentile(percent) for percent in percentiles)
        return Window(percentiles=percentiles, low=low, high=high if high > low else low + 1.0)

    def _keys(self, values: NDArray[np.generic]) -> NDArray[np.integer]:
        if self.dtype.kind == "u":
            return np.asarray(values, np.uint16)
        if self.dtype.kind == "i":
            return np.asarray(values, np.int32) - self._lowest
        finite = values[np.isfinite(values)]
        bits = finite.astype(np.float32, copy=False).view(np.uint32)
        # Negative floats sort in reverse by their bits, and below the positive ones.
        negative = bits >> np.uint32(31) == 1
        ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
        return np.asarray(ordered >> np.uint32(32 - _FLOAT_KEY_BITS), np.uint32)

    def _values(self, keys: NDArray[np.intp]) -> NDArray[np.float64]:
        if self.dtype.kind == "u":
            return keys.astype(np.float64)
        if self.dtype.kind == "i":
            return keys.astype(np.float64) + self._lowest
        shift = 32 - _FLOAT_KEY_BITS
        ordered = (keys.astype(np.uint32) << np.uint32(shift)) + np.uint32(1 << (shift - 1))
        positive = ordered >> np.uint32(31) == 1
        bits = np.where(positive, ordered & np.uint32((1 << 31) - 1), ~ordered)
        return np.asarray(bits.astype(np.uint32).view(np.float32), np.float64)


def find_window(windows: Sequence[Window], percentiles: tuple[float, float]) -> Window | None:
    """Return the window between the given percentiles, or None if it was not recorded."""
    return next((w for w in windows if w.percentiles == percentiles), None)
