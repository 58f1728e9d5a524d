"""What neuroglancer is told: sources, layers, layout and the place that is looked at first.

The names are those of neuroglancer's own state, as it stands in the address of its page.
"""

from __future__ import annotations

from typing import Any, Literal

from isosr_pipeline.viewing.layers import Layer, Scene
from isosr_pipeline.viewing.shaders import image_shader, overlay_shader

Layout = Literal["beside", "over"]

_METRES = 1e-6
_PANEL_PIXELS = 400
"""About what a panel of four measures where two viewers share a screen."""


def neuroglancer_state(scene: Scene, stores_url: str, layout: Layout) -> dict[str, Any]:
    """Describe what neuroglancer shows.

    A layer of neuroglancer's is one channel of a volume.

    Parameters
    ----------
    scene : Scene
    stores_url : str
        Where the files of the volume ``measured`` lie below ``measured/``, and so on.
    layout : {"beside", "over"}
        Each volume in a viewer of its own, which move together, or all in one.

    Returns
    -------
    dict
        Of values that JSON holds.
    """
    latest = scene.restored or scene.measured
    # Positions are counted in these voxels, whatever the size of those of each volume.
    unit = min(latest.volume.voxel_size)
    begin, end = ([side[i] / unit for side in latest.extent] for i in (0, 1))
    longest = max(b - a for a, b in zip(begin, end, strict=True))
    shown = [layer.volume.path.name for layer in (scene.measured, scene.restored) if layer]
    return {
        "title": " and ".join(shown),
        "dimensions": {axis: [unit * _METRES, "m"] for axis in "xyz"},
        "position": [(a + b) / 2 for a, b in zip(begin[::-1], end[::-1], strict=True)],
        "crossSectionScale": longest / _PANEL_PIXELS,
        "projectionScale": 2 * longest,
        "layers": [
            _channel(layer, channel, stores_url, is_overlay=layer is scene.trust)
            for layer in scene.layers
            for channel in range(len(layer.ranges))
        ],
        "layout": _layout(scene, layout),
    }


def _channel(layer: Layer, channel: int, stores_url: str, *, is_overlay: bool) -> dict[str, Any]:
    driver = f"zarr{layer.volume.arrays[0].metadata.zarr_format}"
    drawn = overlay_shader if is_overlay else image_shader
    local = {"localDimensions": {"c'": [1, ""]}, "localPosition": [channel]}
    return {
        "type": "image",
        "name": _names(layer)[channel],
        "source": f"{stores_url}/{layer.name}/|{driver}:",
        "opacity": 1,
        **(local if len(layer.ranges) > 1 else {}),
        **drawn(layer, channel),
    }


def _names(layer: Layer) -> list[str]:
    labels = layer.volume.channels
    if len(labels) == 1:
        return [layer.name]
    if len(set(labels)) < len(labels):
        labels = [f"{index} {label}" for index, label in enumerate(labels)]
    return [f"{layer.name} {label}" for label in labels]


def _layout(scene: Scene, layout: Layout) -> Any:
    if layout == "over" or scene.restored is None:
        return "4panel"
    later = [name for layer in scene.layers[1:] for name in _names(layer)]
    beside = [_names(scene.measured), later]
    return {
        "type": "row",
        "children": [{"type": "viewer", "layers": names, "layout": "4panel"} for names in beside],
    }
