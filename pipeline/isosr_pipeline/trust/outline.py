"""What a trust map will be, known before a voxel of the restored volume is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.errors import InputError, NoMeasuredPlaneError
from isosr_pipeline.geometry import AXES, Zyx
from isosr_pipeline.isotropic import Placed
from isosr_pipeline.restoring.parts import check_channel
from isosr_pipeline.settings import TrustSettings
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.trust.planes import Planes, cells_of

_CELL = 8
_CHUNK = 32
_EDGES = (256, 512)
_FEW_REGIONS = 4096


@dataclass(frozen=True)
class MapOutline:
    """A trust map and what it compares.

    Parameters
    ----------
    shape : Zyx
        Of the restored volume, in voxels.
    planes : Planes
        The measured ones that lie in it.
    channels : list of int
        Those of the restored volume that are looked at.
    cell : Zyx
        In voxels of the restored volume.
    spec : VolumeSpec
        Of the map.
    """

    shape: Zyx
    planes: Planes
    channels: list[int]
    cell: Zyx
    spec: VolumeSpec

    @property
    def regions(self) -> RegionPlan:
        """How the map is cut to be filled."""
        return RegionPlan(self.spec.shard, self.spec.shard, levels=1)

    @property
    def region(self) -> Zyx:
        """Voxels of the restored volume that the largest region is of."""
        cells = (n * c for n, c in zip(self.spec.shard, self.cell, strict=True))
        return Zyx(*map(min, cells, self.shape))


def outline_map(made: Placed, planes: Planes, settings: TrustSettings) -> MapOutline:
    """Decide what the map of a restored volume is to be.

    Parameters
    ----------
    made : Placed
        The restored volume.
    planes : Planes
        The measured ones that lie in it.
    settings : TrustSettings

    Raises
    ------
    NoMeasuredPlaneError
        When none lies in it.
    InputError
        When cells or channels don't fit the volume.
    """
    _check_planes(planes, made)
    channels = _channels(made, settings)
    cell = _cell(settings, planes.step, made)
    _, z, y, x = made.shape
    return MapOutline(Zyx(z, y, x), planes, channels, cell, _spec(made, channels, cell))


def _check_planes(planes: Planes, made: Placed) -> None:
    if planes.within(0, planes.length):
        return
    first, last = planes.offset, planes.offset + planes.length - 1
    below = first // planes.step * planes.step
    raise NoMeasuredPlaneError(
        f"{made.path} shows z {first} to {last} of the isotropic grid, and the measured planes "
        f"nearest to it lie at z {below:g} and {below + planes.step:g}, so that there is nothing "
        "to compare it with; restore a part that is longer along z"
    )


def _channels(made: Placed, settings: TrustSettings) -> list[int]:
    chosen = list(settings.channel or range(made.shape[0]))
    for channel in chosen:
        check_channel(channel, made)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"channel names one twice ({chosen}); give each once")
    return chosen


def _cell(settings: TrustSettings, step: float, made: Placed) -> Zyx:
    least = math.ceil(step - 1e-3)
    if settings.cell == "auto":
        return Zyx(max(_CELL, least), _CELL, _CELL)
    cell = Zyx(*settings.cell)
    if cell.z < least:
        raise InputError(
            f"cell is {cell.z} voxels long along {AXES[0]}, and measured planes lie {step:g} "
            f"voxels apart, so that some cells would hold none; give {least} or more"
        )
    for axis, length, n in zip(AXES, cell, made.shape[1:], strict=True):
        if length > max(n, _EDGES[1]):
            raise InputError(
                f"cell is {length} voxels long along {axis}, and {made.path} has {n}; give fewer"
            )
    return cell


def _spec(made: Placed, channels: list[int], cell: Zyx) -> VolumeSpec:
    depth, height, width = cells_of(Zyx(*made.shape[1:]), cell)
    shape = (len(channels), depth, height, width)
    z, y, x = (
        first + (length - 1) / 2 * size
        for first, length, size in zip(made.origin, cell, made.voxel_size, strict=True)
    )
    size_z, size_y, size_x = (n * s for n, s in zip(cell, made.voxel_size, strict=True))
    return VolumeSpec(
        shape=shape,
        dtype=np.dtype(np.float32),
        voxel_size=(size_z, size_y, size_x),
        chunk=Zyx(_CHUNK, _CHUNK, _CHUNK),
        shard=_shard(shape, cell),
        channels=tuple(made.channels[channel] for channel in channels),
        origin=(z, y, x),
    )


def _shard(shape: tuple[int, int, int, int], cell: Zyx) -> Zyx:
    """Choose regions of about 256 voxels of the restored volume, or 512 where they are many.

    As its shards are, so that what is decoded at once is read at once.
    """
    for edge in _EDGES:
        shard = Zyx(*(max(1, round(edge / length / _CHUNK)) * _CHUNK for length in cell))
        counts = (math.ceil(n / s) for n, s in zip(shape[1:], shard, strict=True))
        if shape[0] * math.prod(counts) <= _FEW_REGIONS:
            break
    return shard
