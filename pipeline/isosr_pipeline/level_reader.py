"""Reads small boxes at random, which takes tensorstore half of zarr's time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.sources.failures import raise_unless_damage
from isosr_pipeline.store.tensorstores import FAILURES, open_tensorstore, zarr_driver
from isosr_pipeline.store.volume import Volume


class LevelReader:
    """Reads boxes of a level of a volume.

    Parameters
    ----------
    volume : Volume
    level : int

    Raises
    ------
    InputError
        When the array can't be opened.
    """

    def __init__(self, volume: Volume, level: int = 0) -> None:
        array = volume.arrays[level]
        self._folder: Path = volume.path / array.path
        try:
            self._array = open_tensorstore(self._folder, zarr_driver(array.metadata.zarr_format))
        except FAILURES as error:
            raise self._explained(error) from error

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the level.

        Returns
        -------
        ndarray, (z, y, x) of the level's dtype
            In native byte order.

        Raises
        ------
        InputError
            When a chunk can't be decoded.
        OSError
            When another attempt may succeed.
        """
        try:
            data: NDArray[Any] = np.asarray(self._array[(channel, *box.slices)].read().result())
        except FAILURES as error:
            raise self._explained(error, f", {box}") from error
        return data

    def _explained(self, error: Exception, where: str = "") -> InputError:
        raise_unless_damage(error, self._folder)
        reason = " ".join(str(error).split())[:200]
        return InputError(
            f"{self._folder}{where} can't be read ({reason}): a chunk is damaged or encoded in an "
            "unknown way; copy or make the store again"
        )
