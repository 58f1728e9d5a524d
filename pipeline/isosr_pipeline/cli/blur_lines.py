"""The blur of a volume as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isosr_pipeline.blur.of_stores import Estimate, VolumeBlur, WidthEstimate


def blur_lines(blur: VolumeBlur) -> list[tuple[str, str]]:
    """Return names and values.

    Parameters
    ----------
    blur : VolumeBlur
    """
    drawn = "foreground" if blur.foreground else "everywhere"
    left_out = f", {blur.left_out} left out" if blur.left_out else ""
    shape = " × ".join(map(str, blur.subvolume))
    lines = [
        ("store", f"{blur.store}, channel {blur.channel}"),
        ("voxels", f"{blur.voxel_size_um:.4g} µm, planes {blur.plane_distance_um:.4g} µm apart"),
        ("sub-volumes", f"{blur.subvolumes} of {shape} voxels from {drawn}{left_out}"),
    ]
    if blur.estimate is not None:
        lines += _of_estimate(blur.estimate)
    return lines + [("warning", text) for text in blur.warnings]


def _of_estimate(found: Estimate) -> list[tuple[str, str]]:
    low, high = found.spread_sigma_voxels
    lines = [
        ("axial blur", f"beyond the lateral one: {_width(found.width)}"),
        ("against x", _width(found.against_x)),
        ("against y", _width(found.against_y)),
        ("directions", f"if structures may prefer some: {_width(found.allowing_for_directions)}"),
        ("spread", f"two thirds of the sub-volumes have a sigma of {low:.2f} to {high:.2f} voxels"),
        (
            "plane",
            f"power differs {found.lateral_power_ratio:.3g} times between its directions; the "
            f"least is at {found.lateral_direction_degrees:.0f}° from x towards y",
        ),
        ("depth", _depth(found)),
    ]
    lines += [
        (
            "",
            f"{part.first_um:.4g} to {part.last_um:.4g} µm: {_width(part.width)}",
        )
        for part in found.depths
    ]
    if found.transfer is not None:
        lines.append(("form", _form(found)))
    return lines


def _depth(found: Estimate) -> str:
    if found.depth == "unknown":
        return "the volume is too thin, or shows too little, to compare depths"
    text = "the blur changes" if found.depth == "changes" else "no change that chance wouldn't give"
    return f"{text} (p = {found.depth_probability:.2g}); centres of sub-volumes at"


def _form(found: Estimate) -> str:
    transfer = found.transfer
    if transfer is None or transfer.gaussian:
        return "a Gaussian comes near enough"
    half = transfer.half_amplitude_fwhm_um
    if half is None:
        return "no Gaussian; the amplitude doesn't fall to half where the data tell it"
    return f"no Gaussian; falls to half its amplitude as one of FWHM {half:.3g} µm does"


def _width(width: WidthEstimate) -> str:
    low, high = width.sigma_voxels_interval
    first, last = width.fwhm_um_interval
    return (
        f"sigma {width.sigma_voxels:.2f} ({low:.2f} to {high:.2f}) voxels, "
        f"{width.sigma_um:.3g} µm; "
        f"FWHM {width.fwhm_voxels:.2f} voxels, {width.fwhm_um:.3g} ({first:.3g} to {last:.3g}) µm"
    )
