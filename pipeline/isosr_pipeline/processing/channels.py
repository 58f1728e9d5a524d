"""Some of the channels of a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.processing.base import WrappedSource


@dataclass(frozen=True)
class PickedChannels(WrappedSource):
    """A source of which some channels are kept, in a given order.

    Parameters
    ----------
    inner : PlacedSource
    picked : tuple of int
        Numbers of channels, from 0.

    Raises
    ------
    InputError
        When there is no such channel, or one is named twice.
    """

    picked: tuple[int, ...]

    def __post_init__(self) -> None:
        count = self.inner.shape[0]
        if max(self.picked) >= count or len(set(self.picked)) != len(self.picked):
            there = ", ".join(f"{i} ({name})" for i, name in enumerate(self.inner.channels))
            raise InputError(
                f"{self.path} has {count} channels: {there}; --channel "
                f"{','.join(map(str, self.picked))} was asked for: name some of these, each once"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return (len(self.picked), *self.inner.shape[1:])

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels of the channels that are kept."""
        return tuple(self.inner.channels[i] for i in self.picked)

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the image; returns (z, y, x) of the source's dtype."""
        return self.inner.read(self.picked[channel], box)
