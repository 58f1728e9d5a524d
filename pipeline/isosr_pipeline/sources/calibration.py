"""Voxel sizes from what microscopes and their programs write into files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tifffile

_MICROMETRES = {
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
}


def micrometres(unit: str) -> float | None:
    r"""Return the length of a unit in µm, or None if it is no known length.

    Parameters
    ----------
    unit : str
        In any of the usual spellings, the escaped ``\u00B5m`` of ImageJ among them.
    """
    spelled = unit.strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")
    return _MICROMETRES.get(spelled) or _MICROMETRES.get(spelled.lower())


def positive_lengths(values: Any) -> tuple[float, float, float] | None:
    """Return three lengths, or None unless they are three positive finite numbers."""
    if isinstance(values, (str, bytes)):
        return None
    try:
        lengths = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(lengths) != 3 or not all(0 < n < math.inf for n in lengths):
        return None
    return lengths[0], lengths[1], lengths[2]


def n5_voxel_size(attributes: Sequence[dict[str, Any]]) -> tuple[float, float, float] | None:
    """Read the voxel size of an N5 array, as BigStitcher, bigstream and n5-viewer write it.

    Parameters
    ----------
    attributes : sequence of dict
        Of the array itself, then of its parents, up to the root. ``pixelResolution`` or
        ``resolution`` is that of the full resolution, in the order x, y, z; the array's own
        ``downsamplingFactors`` multiply it. Without a unit anywhere it is in µm.

    Returns
    -------
    tuple of 3 floats or None
        In µm, order z, y, x; None unless all is there.
    """
    unit = next((u for u in map(_n5_unit, attributes) if u is not None), "um")
    factors = attributes[0].get("downsamplingFactors", (1.0, 1.0, 1.0))
    for level in attributes:
        found = level.get("pixelResolution", level.get("resolution"))
        lengths = found.get("dimensions") if isinstance(found, dict) else found
        if lengths is None:
            continue
        sizes, steps = _first_three(lengths), _first_three(factors)
        length = micrometres(unit)
        if sizes is None or steps is None or length is None:
            return None
        x, y, z = (a * b * length for a, b in zip(sizes, steps, strict=True))
        return z, y, x
    return None


def _first_three(values: Any) -> tuple[float, float, float] | None:
    return positive_lengths(values[:3] if isinstance(values, list) else values)


def _n5_unit(attributes: dict[str, Any]) -> str | None:
    resolution = attributes.get("pixelResolution")
    unit = resolution.get("unit") if isinstance(resolution, dict) else None
    unit = unit or attributes.get("unit") or attributes.get("units")
    if isinstance(unit, list):
        unit = unit[0] if len(set(map(str, unit))) == 1 else "mixed"
    return str(unit) if unit else None


def tiff_voxel_size(tif: tifffile.TiffFile) -> tuple[float, float, float] | None:
    """Read the voxel size of an OME-TIFF or ImageJ TIFF.

    Parameters
    ----------
    tif : tifffile.TiffFile
        Open.

    Returns
    -------
    tuple of 3 floats or None
        In µm, order z, y, x; None unless all three are there.
    """
    if tif.is_ome and tif.ome_metadata:
        return _ome_voxel_size(tif.ome_metadata)
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej_voxel_size(tif.imagej_metadata, tif.pages[0].tags)
    return None


def _ome_voxel_size(xml: str) -> tuple[float, float, float] | None:
    try:
        image = tifffile.xml2dict(xml)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        lengths = positive_lengths([pixels[f"PhysicalSize{axis}"] for axis in "ZYX"])
    except (SyntaxError, LookupError, TypeError):  # of XML, of what is in it
        return None
    if lengths is None:
        return None
    sizes = []
    for axis, length in zip("ZYX", lengths, strict=True):
        unit = micrometres(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        sizes.append(length * (unit or 0.0))
    return positive_lengths(sizes)


def _imagej_voxel_size(metadata: dict[str, Any], tags: Any) -> tuple[float, float, float] | None:
    unit = micrometres(str(metadata.get("unit", "")))
    y, x = (_pixel_length(tags, name) for name in ("YResolution", "XResolution"))
    lengths = positive_lengths([metadata.get("spacing"), y, x])
    if unit is None or lengths is None:
        return None
    return lengths[0] * unit, lengths[1] * unit, lengths[2] * unit


def _pixel_length(tags: Any, name: str) -> float | None:
    if name not in tags:
        return None
    pixels, units = tags[name].value
    return units / pixels if pixels > 0 and units > 0 else None
