"""The job that restores one region; it runs on a worker, in several threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_models.model_folder import read_description
from isosr_models.precision import Precision
from isosr_pipeline.engine.regions import RegionWriter
from isosr_pipeline.errors import HopelessError
from isosr_pipeline.geometry import Box, Context, Region, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.restoring.device import DeviceRestorer, DoesNotFitError, Restored
from isosr_pipeline.restoring.empty import EmptyCells
from isosr_pipeline.restoring.models import load
from isosr_pipeline.restoring.schemes import Scheme, coverage
from isosr_pipeline.settings import Device
from isosr_pipeline.store.volume import Volume

_OPENING = threading.Lock()


@dataclass
class RestoreRegion:
    """Restores one region block by block and writes it.

    Parameters
    ----------
    store, out : Path
        The volume to restore, and the one to fill.
    model : str
        A model folder, or ``"identity"``.
    scheme : Scheme
    windows : list of tuple of 2 floats
        Intensities of each channel of the volume that are 0 and 1 to the network.
    channels : list of int
        Those of the volume that the channels of the output are.
    origin : Zyx
        Where the output begins on the volume's isotropic grid, in voxels.
    floors : list of float or None
        Cells in which nothing exceeds the number of their channel are passed through.
    device : {"auto", "cpu", "cuda"}
    precision : {"32", "bf16"}
    source_id : str
        Of the volume; another one in its place is refused.
    weights_sha256 : str or None
        Of the model, likewise; None for the identity.
    """

    store: Path
    out: Path
    model: str
    scheme: Scheme
    windows: list[tuple[float, float]]
    channels: list[int]
    origin: Zyx
    floors: list[float] | None
    device: Device
    precision: Precision
    source_id: str
    weights_sha256: str | None

    def __call__(self, region: Region) -> dict[str, Any]:
        """Restore the region."""
        with _OPENING:
            output, tools = self._output, self._tools
        work = _Work(tools, self.scheme, self.channels[region.channel])
        out = work.restored(region.box.shifted(self.origin), output.dtype)
        # What was read until now is of the volume that is there now.
        self._require(tools.volume.is_same(), self.store)
        writer = RegionWriter(output, region, None)
        writer.add(region.box, out)
        return {**writer.finish(), **work.counts}

    @cached_property
    def _output(self) -> Volume:
        return Volume(self.out, writable=True)

    @cached_property
    def _tools(self) -> _Tools:
        volume = Volume(self.store)
        self._require(volume.identity == self.source_id, self.store)
        if self.weights_sha256 is not None:
            found = read_description(Path(self.model)).weights_sha256
            self._require(found == self.weights_sha256, self.model)
        view, reader = IsotropicView(volume), LevelReader(volume)
        restorer = load(self.model, self.device, self.scheme.statistics, self.precision)
        empty = EmptyCells(view, reader, volume, self.floors) if self.floors else None
        return _Tools(volume, DeviceRestorer(view, reader, restorer, self.windows), empty)

    def _require(self, is_same: bool, path: Path | str) -> None:
        if not is_same:
            raise HopelessError(
                f"{path} is not what it was when this run began: it has been replaced; nothing is "
                "made of it: bring it back and go on with --resume, or start again with --overwrite"
            )


@dataclass
class _Tools:
    """What a worker opens and loads once."""

    volume: Volume
    device: DeviceRestorer
    empty: EmptyCells | None
    largest: float = float("inf")
    """Voxels of the largest block, with its halo, that may fit the device."""


class _Work:
    """One region's work, and what is counted on the way."""

    def __init__(self, tools: _Tools, scheme: Scheme, channel: int) -> None:
        self._tools, self._scheme, self._channel = tools, scheme, channel
        self._clipped = self._passed = 0
        self._saturated = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Voxels of the region that were clipped, saturated, and passed through."""
        saturated = round(self._saturated)
        return {"clipped": self._clipped, "saturated": saturated, "passed": self._passed}

    def restored(self, box: Box, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Restore a box of the isotropic grid."""
        averages = self._scheme.averages
        covered = coverage(box, self._tools.device.view.shape) if averages else None
        out = np.zeros(box.shape, np.float32 if averages else dtype)
        for block, found in self._blocks(box):
            place = block.kept.relative_to(box.start).slices
            if covered is None:
                out[place] = self._rounded(found.values, dtype)
            else:
                out[place] += found.values
            if found.saturated is not None:
                # Of a voxel that lies in several blocks, each counts its part.
                part = 1.0 if covered is None else 1 / covered[place]
                self._saturated += float((found.saturated * part).sum(dtype=np.float64))
        return out if covered is None else self._rounded(np.divide(out, covered, out=out), dtype)

    def _blocks(self, box: Box) -> Iterator[tuple[Context, Restored]]:
        """Restore block by block; blocks that do not fit are halved, and so are those after."""
        waiting = deque(self._scheme.blocks(box))
        while waiting:
            block = waiting.popleft()
            if block.read.voxels > self._tools.largest:
                waiting.extendleft(reversed(self._scheme.halved(block)))
                continue
            try:
                found = self._block(block)
            except DoesNotFitError:
                self._tools.largest = min(self._tools.largest, block.read.voxels - 1)
                waiting.appendleft(block)
                continue
            yield block, found

    def _block(self, block: Context) -> Restored:
        kept, device, empty = block.kept, self._tools.device, self._tools.empty
        passed = list(empty.in_box(self._channel, kept)) if empty else []
        voxels = sum(part.voxels for part in passed)
        if passed and voxels == kept.voxels:
            found = Restored(device.resample(self._channel, kept), None)
        else:
            parts = [part.relative_to(kept.start) for part in passed]
            found = device.restore(self._channel, block, parts)
        self._passed += voxels
        return found

    def _rounded(self, values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        rounded, clipped = to_dtype(values, dtype)
        self._clipped += clipped
        return rounded


def to_dtype(values: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """Round to a dtype, and count the values that had to be clipped to its range.

    Parameters
    ----------
    values : ndarray, float32
        Finite; integers are rounded in place.
    dtype : numpy.dtype
        Floats are taken as they are.
    """
    if dtype.kind == "f":
        return values.astype(dtype, copy=False), 0
    limits = np.iinfo(dtype)
    rounded = np.rint(values, out=values)
    if limits.min <= rounded.min() and rounded.max() <= limits.max:
        return rounded.astype(dtype), 0
    beyond = int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
    return np.clip(rounded, limits.min, limits.max).astype(dtype), beyond
