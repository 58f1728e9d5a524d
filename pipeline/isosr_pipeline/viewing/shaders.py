"""How neuroglancer draws a channel: small programs for the graphics card, and their controls."""

from __future__ import annotations

from typing import Any

from isosr_pipeline.store.metadata import CHANNEL_COLORS
from isosr_pipeline.viewing.layers import Layer

_GREY = """#uicontrol invlerp intensity
void main() { emitGrayscale(intensity()); }
"""

_COLORED = """#uicontrol invlerp intensity
#uicontrol vec3 color color(default="#{color}")
void main() {{ emitRGB(color * intensity()); }}
"""

# Where the restored volume has too much light is told from where it has too little.
_SIGNED = """#uicontrol invlerp doubt
#uicontrol vec3 above color(default="#ff4040")
#uicontrol vec3 below color(default="#40a0ff")
#uicontrol float strength slider(min=0, max=1, default=0.7)
void main() {
  float value = toRaw(getDataValue());
  if (isnan(value)) { emitTransparent(); return; }
  float share = clamp(doubt(abs(value)), 0.0, 1.0);
  emitRGBA(vec4(value < 0.0 ? below : above, strength * share));
}
"""

_UNSIGNED = """#uicontrol invlerp doubt
#uicontrol vec3 above color(default="#ff4040")
#uicontrol float strength slider(min=0, max=1, default=0.7)
void main() { emitRGBA(vec4(above, strength * clamp(doubt(), 0.0, 1.0))); }
"""


def image_shader(layer: Layer, channel: int) -> dict[str, Any]:
    """Draw the only channel of a volume in grey, and one of several in a colour, added to others.

    Returns
    -------
    dict
        Parts of the state of neuroglancer's layer, with the range that is black to white.
    """
    if len(layer.ranges) == 1:
        return _drawn(_GREY, intensity=layer.ranges[0])
    # White would hide the channels after it.
    color = CHANNEL_COLORS[1 + channel % (len(CHANNEL_COLORS) - 1)]
    drawn = _drawn(_COLORED.format(color=color), intensity=layer.ranges[channel])
    return {**drawn, "blend": "additive"} if channel else drawn


def overlay_shader(layer: Layer, channel: int) -> dict[str, Any]:
    """Draw what is large in colour, and let through the rest; red above zero and blue below.

    Returns
    -------
    dict
        Parts of the state of neuroglancer's layer.
    """
    low, high = layer.ranges[channel]
    if layer.volume.dtype.kind == "f":
        return _drawn(_SIGNED, doubt=(low, high) if low >= 0 else (0.0, max(-low, high)))
    return _drawn(_UNSIGNED, doubt=(low, high))


def _drawn(shader: str, **ranges: tuple[float, float]) -> dict[str, Any]:
    controls = {name: {"range": list(shown)} for name, shown in ranges.items()}
    return {"shader": shader, "shaderControls": controls}
