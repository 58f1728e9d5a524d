"""Volumes shown in napari, for those who have it installed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.store.metadata import CHANNEL_COLORS
from isosr_pipeline.viewing.layers import Layer, Scene, open_scene

# Qt ends the whole process where it finds none of them.
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")

_BLUE, _NOTHING, _RED = (0.25, 0.63, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (1.0, 0.25, 0.25, 1.0)
_SIGNED, _UNSIGNED = [_BLUE, _NOTHING, _RED], [_NOTHING, _RED]


class ChannelLevel:
    """One channel of one level, read where it is looked at: an array as napari takes it.

    Parameters
    ----------
    array : zarr.Array, (c, z, y, x)
    channel : int
    """

    def __init__(self, array: zarr.Array[Any], channel: int) -> None:
        self._array, self._channel = array, channel
        self.shape: tuple[int, ...] = array.shape[1:]
        self.size = math.prod(self.shape)
        self.dtype = array.dtype
        self.ndim = 3

    def __getitem__(self, key: Any) -> NDArray[Any]:
        inner = key if isinstance(key, tuple) else (key,)
        return np.asarray(self._array[(self._channel, *inner)])


def show_in_napari(
    store: Path, restored: Path | None, trust: Path | None, say: Callable[[str], None]
) -> None:
    """Show volumes one over the other in napari until its window is closed.

    Parameters
    ----------
    store : Path
    restored : Path or None
    trust : Path or None
        None: the one that lies beside the restored volume, if there is one.
    say : callable
        Called with what is not shown.

    Raises
    ------
    InputError
        When napari is not installed, there is no screen, or a volume is none.
    """
    try:
        import napari
    except ImportError as error:
        raise InputError(
            "napari is not installed; install it beside isosr-pipeline with "
            "pip install 'napari[all]', or leave out --napari to look in the browser"
        ) from error
    if sys.platform == "linux" and not any(map(os.environ.get, _SCREENS)):
        raise InputError(
            "napari needs a screen, and there is none here (DISPLAY and WAYLAND_DISPLAY are not "
            "set); leave out --napari to look in the browser, from another machine too"
        )
    scene = open_scene(store, restored, trust)
    for line in scene.notes:
        say(line)
    viewer = napari.Viewer(title=scene.measured.volume.path.name)
    for options in napari_layers(scene):
        viewer.add_image(**options)
    napari.run()


def napari_layers(scene: Scene) -> list[dict[str, Any]]:
    """Describe the layers of napari: arguments of `add_image`, a layer for each channel.

    Lengths are µm, order z, y, x.
    """
    return [
        _image(scene, layer, channel)
        for layer in scene.layers
        for channel in range(len(layer.ranges))
    ]


def _image(scene: Scene, layer: Layer, channel: int) -> dict[str, Any]:
    volume = layer.volume
    label = f" {volume.channels[channel]}" if len(layer.ranges) > 1 else ""
    return {
        "data": [ChannelLevel(array, channel) for array in volume.arrays],
        "multiscale": True,
        "name": f"{layer.name}{label}",
        "scale": volume.voxel_size,
        "translate": volume.origin,
        "units": ("um", "um", "um"),
        **(_over(layer, channel) if layer is scene.trust else _below(layer, channel)),
    }


def _below(layer: Layer, channel: int) -> dict[str, Any]:
    color = f"#{CHANNEL_COLORS[1 + channel % (len(CHANNEL_COLORS) - 1)]}"
    return {
        "contrast_limits": layer.ranges[channel],
        "colormap": "gray" if len(layer.ranges) == 1 else color,
        "blending": "additive" if channel else "translucent",
    }


def _over(layer: Layer, channel: int) -> dict[str, Any]:
    """Add light where values are large: red above zero, blue below."""
    low, high = layer.ranges[channel]
    colors, limits = _UNSIGNED, (low, high)
    if layer.volume.dtype.kind == "f":
        largest = max(abs(low), abs(high))
        colors, limits = _SIGNED, (-largest, largest)
    return {
        "contrast_limits": limits,
        "colormap": {"name": f"trust {len(colors)}", "colors": colors},
        "blending": "additive",
    }
