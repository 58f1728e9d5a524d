"""What makes the estimate of a blur doubtful, in words."""

from __future__ import annotations

from collections.abc import Iterator

from isosr_pipeline.blur.axial import AxialBlur
from isosr_pipeline.blur.form import HALF_TIMES_SIGMA

NOTHING = (
    "nothing can be told: noise hides the structure of the sub-volumes, or there is none; look at "
    "another channel, or take larger sub-volumes with --edge"
)

_UNLIKELY = 0.001
_LEAST_RATIO = 2.0
_CERTAIN = 4.0
_LEAST_DIRECTIONS = 0.5
_LEAST_EXCESS = 9.0
_FEWEST = 8
_WIDE = 0.9
_LEAST_WIDTH = 0.25
_LEAST_SHARE = 0.1


def warnings(blur: AxialBlur) -> Iterator[str]:
    """Say what makes an estimate doubtful, the gravest first.

    Parameters
    ----------
    blur : AxialBlur
    """
    widest = HALF_TIMES_SIGMA / blur.band[0]
    if blur.lateral.sigma > _WIDE * widest:
        yield (
            f"the blur is too wide for frequencies from {blur.band[0]:.3f} cycles per voxel on, "
            f"which tell a sigma of up to {widest:.2g} voxels: only its tail is seen, and it may "
            "be wider; give a larger --edge, or a store of coarser voxels"
        )
    yield from _of_directions(blur)
    form = blur.form
    if form is not None and not form.gaussian:
        yield (
            "the blur is not a Gaussian: widths are those of the Gaussian that comes nearest, and "
            "the transfer function tells more"
        )
    if blur.depth.found == "changes":
        yield (
            "the blur changes with depth, or the tissue does: the widths of all depths together "
            "hold for none of them"
        )
    if blur.excess > _LEAST_EXCESS:
        yield (
            f"sub-volumes differ {blur.excess:.0f} times as much as chance would have it: "
            "directions of the tissue, or the blur, differ from place to place"
        )
    if blur.used < _FEWEST:
        yield (
            f"there are only {blur.used} sub-volumes, so that errors are uncertain themselves; "
            "look at a larger volume"
        )


def _of_directions(blur: AxialBlur) -> Iterator[str]:
    plane = blur.plane
    if plane.probability < _UNLIKELY and plane.power_ratio > _LEAST_RATIO:
        yield (
            f"structures in the plane run along {plane.direction:.0f}° from x towards y, or are "
            f"blurred along it: the power across is {plane.power_ratio:.2g} times that along it. "
            "Tissue with preferred directions biases widths; the one that allows for directions is "
            "biased less"
        )
    certain = abs(blur.directions) > max(_CERTAIN * blur.directions_error, _LEAST_DIRECTIONS)
    one, other = blur.lateral.sigma, blur.with_directions.sigma
    if certain and abs(one - other) > max(_LEAST_WIDTH, _LEAST_SHARE * max(one, other)):
        where = "along z" if blur.directions > 0 else "in the plane"
        yield (
            "the spectrum along z differs from that in the plane alike at all frequencies, which "
            f"is not how a Gaussian blur acts: structures run {where}, or the blur is a sharp core "
            "in a wide halo. The width that allows for directions differs much: "
            f"{other:.2f} instead of {one:.2f} voxels (sigma)"
        )
