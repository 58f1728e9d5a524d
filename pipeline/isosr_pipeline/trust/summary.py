"""What a trust map comes to: shares of cells that are flagged, and the worst places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.evidence import Terms
from isosr_pipeline.trust.regions import Place

_COUNTED = ("cells", "signal", "invented", "missing", "flagged_signal")
_APART = 2
"""Cells between two places of the list, along some axis."""


class _Found(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorstPlace(_Found):
    """A place where the restored volume does not explain the measured one.

    Attributes
    ----------
    channel : int
        Of the restored volume.
    score : float
        Above 0: more light than was measured; below: less. In standard deviations.
    voxel : tuple of 3 ints
        The middle of the cell in the restored volume, order z, y, x.
    um : tuple of 3 floats
        The same in µm, as viewers show it: of the whole volume, whatever part of it was restored.
    grid : tuple of 3 ints or None
        The same in voxels of the isotropic grid of the whole volume, in which ``restore --roi``
        counts; None in what was written before it was told.
    """

    channel: int
    score: float
    voxel: tuple[int, int, int]
    um: tuple[float, float, float]
    grid: tuple[int, int, int] | None = None


class ChannelTrust(_Found):
    """What a channel comes to.

    Attributes
    ----------
    channel : int
        Of the restored volume.
    cells : int
        That are judged: all but those at the border, which light from beyond may explain.
    signal : int
        Of these, that show more than background.
    flagged, flagged_signal : float
        Shares of both that are flagged.
    invented, missing : float
        Shares of all cells that are flagged with more, or less, light than was measured.
    spread : float
        Of all scores: half of the distance between their 16th and 84th percentiles. About 1 where
        noise is all that is left; far more where it is correlated, or the blur is another.
    gain, offset : float
        That bring the re-blurred volume to the measured intensities.
    noise_gain, noise_floor : float
        The variance of noise at an intensity I is ``noise_gain I + noise_floor``.
    """

    channel: int
    cells: int
    signal: int
    flagged: float
    flagged_signal: float
    invented: float
    missing: float
    spread: float
    gain: float
    offset: float
    noise_gain: float
    noise_floor: float


class TrustSummary(_Found):
    """What ``trust`` found.

    Attributes
    ----------
    store, restored, map : str
        Paths.
    blur : str
        What the restored volume was blurred with.
    cell : tuple of 3 ints
        In voxels of the restored volume, order z, y, x.
    threshold, tolerance : float
        See `TrustSettings`.
    channels : tuple of ChannelTrust
    worst : tuple of WorstPlace
        The worst first.
    """

    store: str
    restored: str
    map: str
    blur: str
    cell: tuple[int, int, int]
    threshold: float
    tolerance: float
    channels: tuple[ChannelTrust, ...]
    worst: tuple[WorstPlace, ...]


class NoTrustMap(_Found):
    """What is kept where no map can be made.

    Attributes
    ----------
    restored : str
        Path.
    reason : str
    blur_unknown : bool
        Whether one could be made if the blur were given.
    """

    restored: str
    reason: str
    blur_unknown: bool = True


def read_summary(trust: Volume) -> TrustSummary:
    """Return what a map that is complete comes to, as its history says it.

    Parameters
    ----------
    trust : Volume
        The map.

    Raises
    ------
    InputError
        When another program wrote it, or a version that says other things.
    """
    try:
        return TrustSummary.model_validate(trust.require_own().history[-1].figures)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{trust.path} does not say what it comes to, as other versions may have written it "
            f"({where}: {first['msg']}); make it again: isosr-pipeline trust STORE RESTORED MODEL "
            "--overwrite"
        ) from error


class Tally:
    """Adds up what was recorded of regions.

    Parameters
    ----------
    channels : sequence of int
        Those of the restored volume that the channels of the map are.
    count : int
        How many places are named.
    """

    def __init__(self, channels: Sequence[int], count: int) -> None:
        self._channels, self._count = channels, count
        self._counts = [dict.fromkeys(_COUNTED, 0) for _ in channels]
        self._scores = [Histogram(np.float32) for _ in channels]
        self._places: list[tuple[int, Place]] = []

    def add(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Add regions."""
        for result in results:
            channel = result["channel"]
            for name in _COUNTED:
                self._counts[channel][name] += result[name]
            self._scores[channel].add_encoded(result["histogram"])
            self._places += [(channel, Place(*place)) for place in result["worst"]]
            # Neighbours across a border are told apart at the end: some more are kept.
            if len(self._places) > 64 * (self._count + 1):
                self._places = self._worst(16 * (self._count + 1))

    def channels(self, terms: Sequence[Terms]) -> tuple[ChannelTrust, ...]:
        """Return what each channel comes to."""
        return tuple(
            _channel(*found)
            for found in zip(self._channels, self._counts, self._scores, terms, strict=True)
        )

    def worst(self, cell: Zyx, restored: Volume, origin: Zyx) -> tuple[WorstPlace, ...]:
        """Return the worst places that are no neighbours.

        Parameters
        ----------
        cell : Zyx
            In voxels.
        restored : Volume
        origin : Zyx
            Where it begins on the isotropic grid of the measured one, in voxels.
        """
        chosen: list[tuple[int, Place]] = []
        for channel, place in self._worst(len(self._places)):
            if len(chosen) == self._count:
                break
            if not any(c == channel and _is_near(place, other) for c, other in chosen):
                chosen.append((channel, place))
        return tuple(
            _named(self._channels[channel], place, cell, restored, origin)
            for channel, place in chosen
        )

    def _worst(self, count: int) -> list[tuple[int, Place]]:
        return sorted(self._places, key=lambda one: (-abs(one[1].score), one))[:count]


def _channel(
    channel: int, counts: Mapping[str, int], scores: Histogram, terms: Terms
) -> ChannelTrust:
    cells, signal = max(counts["cells"], 1), max(counts["signal"], 1)
    return ChannelTrust(
        channel=channel,
        cells=counts["cells"],
        signal=counts["signal"],
        flagged=(counts["invented"] + counts["missing"]) / cells,
        flagged_signal=counts["flagged_signal"] / signal,
        invented=counts["invented"] / cells,
        missing=counts["missing"] / cells,
        spread=(scores.percentile(84.13) - scores.percentile(15.87)) / 2,
        gain=terms.gain,
        offset=terms.offset,
        noise_gain=terms.noise.gain,
        noise_floor=terms.noise.floor,
    )


def _is_near(place: Place, other: Place) -> bool:
    return all(abs(a - b) < _APART for a, b in zip(place[1:], other[1:], strict=True))


def _named(channel: int, place: Place, cell: Zyx, restored: Volume, origin: Zyx) -> WorstPlace:
    middles = (
        min(number * length + length // 2, n - 1)
        for number, length, n in zip(place[1:], cell, restored.shape[1:], strict=True)
    )
    z, y, x = middles
    at = zip(restored.origin, (z, y, x), restored.voxel_size, strict=True)
    um_z, um_y, um_x = (round(first + n * size, 4) for first, n, size in at)
    return WorstPlace(
        channel=channel,
        score=round(place.score, 2),
        voxel=(z, y, x),
        um=(um_z, um_y, um_x),
        grid=(z + origin.z, y + origin.y, x + origin.x),
    )
