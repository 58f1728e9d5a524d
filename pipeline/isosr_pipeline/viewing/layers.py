"""What is shown: volumes, where their voxels lie, and the intensities shown as black and white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.store.intensity import CONFOCAL
from isosr_pipeline.store.metadata import display_limits
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside, mismatch

Range = tuple[float, float]

_MOST_VOXELS = 1 << 24


@dataclass(frozen=True)
class Layer:
    """A volume that is shown.

    Parameters
    ----------
    name : str
        Of letters only.
    volume : Volume
    ranges : tuple of tuple of 2 floats
        For each channel, the intensities that are black and white.
    """

    name: str
    volume: Volume
    ranges: tuple[Range, ...]

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Where the volume begins and ends, in µm, order z, y, x, outer sides of its voxels."""
        return tuple(
            (origin - size / 2, origin + (length - 0.5) * size)
            for origin, size, length in zip(
                self.volume.origin, self.volume.voxel_size, self.volume.shape[1:], strict=True
            )
        )


@dataclass(frozen=True)
class Scene:
    """The volumes that are shown together.

    Parameters
    ----------
    measured : Layer
    restored : Layer or None
    trust : Layer or None
        Drawn over the restored volume, or the measured one where there is no other.
    notes : tuple of str
        What is not shown, and why.
    """

    measured: Layer
    restored: Layer | None = None
    trust: Layer | None = None
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> list[Layer]:
        """All of them, the first at the bottom."""
        return [layer for layer in (self.measured, self.restored, self.trust) if layer]


def open_scene(store: Path, restored: Path | None, trust: Path | None) -> Scene:
    """Open the volumes that are shown, and choose the intensities at which they are.

    The restored volume has the units of the measured one, and is shown at the same intensities.

    Parameters
    ----------
    store : Path
    restored : Path or None
    trust : Path or None
        None: the one that lies beside the restored volume, if there is one; it is left out where it
        is of another restoration.

    Raises
    ------
    InputError
        When one is no OME-Zarr volume, the volumes have no place in common, or `trust` is of
        another restoration.
    """
    measured = Volume(store)
    ranges = _ranges(measured)
    layers = [Layer("measured", measured, ranges)]
    if restored is not None:
        volume = Volume(restored)
        known = dict(zip(measured.channels, ranges, strict=True))
        own = volume.channels
        same = all(channel in known for channel in own)
        chosen = tuple(known[channel] for channel in own) if same else _ranges(volume)
        layers.append(Layer("restored", volume, chosen))
    shown = layers[1] if restored is not None else None
    overlay, left_out = _overlay(trust, shown)
    for other in (*layers[1:], *([overlay] if overlay else [])):
        _require_overlap(layers[0], other)
    return Scene(layers[0], shown, overlay, (left_out,) if left_out else ())


def _overlay(named: Path | None, restored: Layer | None) -> tuple[Layer | None, str | None]:
    """Open the trust map that is named, or lies beside the restored volume and is of it.

    Returns
    -------
    tuple of (Layer or None, str or None)
        The map, and why one that lies there is left out.
    """
    path = named
    if path is None and restored is not None:
        path = map_beside(restored.volume.path)
        path = path if path.exists() else None
    if path is None:
        return None, None
    volume = Volume(path)
    problem = mismatch(volume, restored.volume) if restored else None
    if problem is None:
        return Layer("trust", volume, _ranges(volume)), None
    if named is not None:
        raise InputError(problem)
    return None, f"the trust map is left out: {problem}"


def _ranges(volume: Volume) -> tuple[Range, ...]:
    return tuple(_range(volume, channel) for channel in range(volume.shape[0]))


def _range(volume: Volume, channel: int) -> Range:
    low, high = volume.display_range(channel) or _range_of_voxels(volume, channel)
    if volume.dtype.kind in "ui":
        low, high = math.floor(low), math.ceil(high)
    return (low, high) if low < high else (low, low + 1)


def _range_of_voxels(volume: Volume, channel: int) -> Range:
    """Tell the range from the coarsest level, where no program has recorded one."""
    level = len(volume.arrays) - 1
    _, z, y, x = volume.arrays[level].shape
    if z * y * x > _MOST_VOXELS:
        return display_limits(volume.dtype, [])
    voxels = volume.read(channel, Box.whole((z, y, x)), level)
    finite = voxels[np.isfinite(voxels)]
    if not finite.size:
        return display_limits(volume.dtype, [])
    low, high = np.percentile(finite, CONFOCAL)
    return float(low), float(high)


def _require_overlap(layer: Layer, other: Layer) -> None:
    for axis, here, there in zip("zyx", layer.extent, other.extent, strict=True):
        if there[0] >= here[1] or there[1] <= here[0]:
            raise InputError(
                f"{other.volume.path} lies at {there[0]:g} to {there[1]:g} µm along {axis}, and "
                f"{layer.volume.path} at {here[0]:g} to {here[1]:g} µm, so that they can't be "
                "looked at together; give volumes of the same place"
            )
