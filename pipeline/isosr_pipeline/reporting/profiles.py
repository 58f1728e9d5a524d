"""Intensity along lines through the brightest spots, with the Gaussians that were fitted."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.drawing import AFTER, BEFORE
from isosr_pipeline.evidence.spots import SpotComparison, SpotPair
from isosr_pipeline.geometry import AXES, Box, Zyx
from isosr_pipeline.reporting.curves import Chart, Curve
from isosr_pipeline.reporting.pair import Pair
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.widths import FWHM_PER_SIGMA

MOST_SPOTS = 3

_REACH = 2.0
_MOST_VOXELS = 64
_CURVE_POINTS = 120

_Floats = NDArray[np.float64]


def profile_charts(pair: Pair, spots: SpotComparison) -> Iterator[Chart]:
    """Draw profiles of the brightest spots along z, y and x.

    Before restoration they are of the measured planes, which interpolated ones would widen. The
    Gaussian of a profile has the centre and the width of the one fitted in 3D; its height and
    background are fitted to the profile by least squares.

    Parameters
    ----------
    pair : Pair
    spots : SpotComparison
        Of the same volumes.
    """
    brightest = sorted(spots.pairs, key=lambda spot: -spot.height)[:MOST_SPOTS]
    for number, spot in enumerate(brightest, 1):
        for axis, name in enumerate(AXES):
            yield _chart(pair, spot, axis, f"spot {number}, along {name}")


def _chart(pair: Pair, spot: SpotPair, axis: int, title: str) -> Chart:
    um = pair.voxel_um
    first = [a * um for a in pair.before.box.start]
    step = um / pair.before.view.planes_per_voxel
    measured = [(f + c) for f, c in zip(first, spot.centre_um, strict=True)]
    restored = [c + s for c, s in zip(spot.centre_um, spot.shift_um, strict=True)]
    channel = pair.before.channels[pair.channel]
    widths = (spot.before.fwhm_um[axis], spot.after.fwhm_um[axis])
    reach = _REACH * max(widths)
    lines = (
        _line(pair.measured, channel, measured, (step, um, um), axis, reach),
        _line(pair.made, pair.channel, restored, (um, um, um), axis, reach),
    )
    shift = spot.shift_um[axis]
    curves = []
    for (x, y), width, centre, label, colour in zip(
        lines, widths, (0.0, shift), ("input", "restored"), (BEFORE, AFTER), strict=True
    ):
        # Positions are those from the centre before restoration.
        places = x + centre
        curves.append(Curve("", places.tolist(), y.tolist(), colour, "points"))
        fitted = _gaussian(places, y, centre, width)
        if fitted is not None:
            curves.append(Curve(f"{label}, {width:.3g} µm", *fitted, colour))
    return Chart(title, f"{AXES[axis]} (µm)", "intensity", curves)


def _line(
    volume: Volume,
    channel: int,
    centre_um: list[float],
    size: tuple[float, float, float],
    axis: int,
    reach: float,
) -> tuple[_Floats, _Floats]:
    """Return positions from a centre, in µm, and intensities along a line of voxels."""
    lengths = volume.shape[1:]
    places = [
        min(max(round(c / s), 0), n - 1) for c, s, n in zip(centre_um, size, lengths, strict=True)
    ]
    half = min(math.ceil(reach / size[axis]), _MOST_VOXELS)
    start, stop = list(places), [p + 1 for p in places]
    start[axis] = max(places[axis] - half, 0)
    stop[axis] = min(places[axis] + half + 1, lengths[axis])
    values = volume.read(channel, Box(Zyx(*start), Zyx(*stop))).ravel().astype(np.float64)
    at = np.arange(start[axis], stop[axis], dtype=np.float64)
    return at * size[axis] - centre_um[axis], values


def _gaussian(
    x: _Floats, y: _Floats, centre: float, fwhm: float
) -> tuple[list[float], list[float]] | None:
    """Return points of a Gaussian whose height and background fit a profile."""
    if len(x) < 3:
        return None

    def shape(places: _Floats) -> _Floats:
        return np.asarray(np.exp(-0.5 * ((places - centre) * FWHM_PER_SIGMA / fwhm) ** 2))

    terms = np.stack([shape(x), np.ones_like(x)], axis=1)
    (height, background), *_ = np.linalg.lstsq(terms, y, rcond=None)
    places = np.linspace(x.min(), x.max(), _CURVE_POINTS)
    return places.tolist(), (background + height * shape(places)).tolist()
