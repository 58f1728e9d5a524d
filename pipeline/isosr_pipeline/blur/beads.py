"""Isolated beads in a volume of any size: found, measured, and averaged to a PSF."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isosr_pipeline.blur.psf_volumes import border_of, sampling
from isosr_pipeline.blur.spots import Spot, fit_spot
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.widths import FWHM_PER_SIGMA

_Floats = NDArray[np.float64]

_TILE = Zyx(64, 256, 256)
_FIRST = 16
"""Brightest spots, of as many tiles, that tell how large beads are."""
_MOST = 4096
"""Spots that are looked at, the brightest ones."""

_REACH = 2.0
"""How far around a bead the PSF goes, in widths at half maximum."""
_SMOOTHED = 0.4
"""Standard deviation of the filter that finds spots, over that of a bead."""

_ABOVE_NOISE = 8.0
FAINTEST = 0.25
"""Height of the faintest bead, over that of the typical one."""
_NEIGHBOUR = 0.1
"""Height of the brightest neighbour that a bead may have, over its own."""
LEAST_EXPLAINED = 0.5
"""Share of the variance that a Gaussian accounts for; noise takes its own of faint beads."""
_MOST_UNLIKE = 1.5
"""How many times as wide as the typical bead another one may be, or the reverse."""

_MAD = 1.4826
_SPLINE = 2
"""Voxels beyond what is sampled, for the splines."""


class BeadImage(Protocol):
    """What beads are looked for in: a volume, or a source."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in it; returns (z, y, x)."""
        ...


class Peak(NamedTuple):
    """A local maximum.

    Attributes
    ----------
    height : float
        Above the level around it, in the units of the volume.
    place : Zyx
        In voxels.
    """

    height: float
    place: Zyx


@dataclass
class Beads:
    """What was found.

    Attributes
    ----------
    spots : list of Spot
        Gaussians fitted to the beads that were averaged.
    psf : ndarray, (z, y, x) float64
        Their mean, each sampled with its centre on the middle voxel, less its background, and
        divided by its height; brighter ones weigh more, by their height. Odd lengths.
    rejected : Counter
        How many spots were left out, by the reason.
    """

    spots: list[Spot]
    psf: _Floats
    rejected: Counter[str] = field(default_factory=Counter)


def find_beads(image: BeadImage, channel: int, name: str) -> Beads:
    """Find isolated beads, and average them.

    Spots are local maxima at least a quarter as high as the typical one and 8 standard deviations
    of the noise above what surrounds them. Left out are those whose surroundings, twice the widths
    at half maximum, reach beyond the volume or hold another spot a tenth as bright; which are as
    bright as the dtype allows; and which are no Gaussian, or one 1.5 times as wide as the typical
    one or narrower by as much, such as clusters.

    Parameters
    ----------
    image : BeadImage
        Read twice, tile by tile.
    channel : int
    name : str
        For messages.

    Raises
    ------
    InputError
        When there is no isolated bead.
    """
    brightest = [brightest_spot(image, channel, tile, name) for tile in _tiles(image)]
    typical = typical_spot(image, channel, [peak for peak in brightest if peak], name)
    if typical is None:
        raise InputError(
            f"{name} shows no bead: no bright spot in it is like a Gaussian; give a volume of "
            "single beads, smaller than the microscope resolves"
        )
    height, fwhm = typical
    peaks = [p for tile in _tiles(image) for p in peaks_in(image, channel, tile, height, fwhm)]
    peaks = sorted(peaks, reverse=True)[:_MOST]
    reach = reach_of(fwhm)
    room = Zyx(*(r + _SPLINE for r in reach))
    rejected: Counter[str] = Counter()
    fitted: list[tuple[Peak, Spot]] = []
    for peak in peaks:
        if peak.height < FAINTEST * height:
            continue
        reason, spot = judged(image, channel, peak, peaks, fwhm, room)
        if spot is None:
            rejected[reason] += 1
        else:
            fitted.append((peak, spot))
    alike = [fitted[index] for index in alike_spots([spot for _peak, spot in fitted])]
    rejected["shape"] += len(fitted) - len(alike)
    if not alike:
        found = ", ".join(f"{count} {why}" for why, count in rejected.items() if count)
        raise InputError(
            f"{name} holds no isolated bead (spots left out: {found or 'none'}); give a volume "
            f"with single beads, {' × '.join(map(str, reach))} voxels (z, y, x) from each other "
            "and from the border"
        )
    psf = _averaged(image, channel, alike, reach)
    return Beads([spot for _peak, spot in alike], psf, +rejected)


def reach_of(fwhm: _Floats) -> Zyx:
    """Return how far around a bead no other may lie, in voxels; of widths at half maximum."""
    return Zyx(*(math.ceil(_REACH * width) for width in fwhm))


def _tiles(image: BeadImage) -> Iterator[Box]:
    yield from blocks(Box.whole(image.shape[1:]), _TILE)


def _read(image: BeadImage, channel: int, box: Box, name: str = "") -> NDArray[np.float32]:
    values = image.read(channel, box).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} has NaN or infinite voxels in {box}; repair them first")
    return values


def brightest_spot(image: BeadImage, channel: int, tile: Box, name: str) -> Peak | None:
    """Return the brightest spot of a tile; None where it is not above the noise.

    Parameters
    ----------
    image : BeadImage
    channel : int
    tile : Box
        In voxels of the image.
    name : str
        For messages.

    Raises
    ------
    InputError
        When there are voxels that are NaN or infinite.
    """
    smooth = ndimage.gaussian_filter(_read(image, channel, tile, name), 1)
    place = np.argwhere(smooth == smooth.max())[0]
    level, noise = _background(smooth)
    height = float(smooth.max()) - level
    if not height > _ABOVE_NOISE * noise:
        return None
    return Peak(height, Zyx(*(int(p) + a for p, a in zip(place.tolist(), tile.start, strict=True))))


def typical_spot(
    image: BeadImage, channel: int, brightest: Sequence[Peak], name: str
) -> tuple[float, _Floats] | None:
    """Return height, and widths at half maximum along z, y, x, of the brightest spots: medians.

    Parameters
    ----------
    image : BeadImage
    channel : int
    brightest : sequence of Peak
        Of many tiles; 16 of them are looked at.
    name : str
        For messages.

    Returns
    -------
    (float, (3,) float64) or None
        In voxels; None: none of them is like a Gaussian.
    """
    found = []
    for peak in sorted(brightest, reverse=True)[:_FIRST]:
        half = Zyx(*(n // 2 for n in _TILE))
        start = Zyx(*(p - h for p, h in zip(peak.place, half, strict=True)))
        stop = Zyx(*(p + h for p, h in zip(peak.place, half, strict=True)))
        spot = fit_spot(_read(image, channel, Box(start, stop).clipped(image.shape[1:]), name))
        if spot is not None and spot.explained >= LEAST_EXPLAINED:
            found.append((spot.amplitude, *spot.fwhm))
    if not found:
        return None
    height, *fwhm = np.median(found, axis=0)
    return float(height), np.maximum(fwhm, 1.0)


def peaks_in(
    image: BeadImage, channel: int, tile: Box, height: float, fwhm: _Floats
) -> Iterator[Peak]:
    """Yield the local maxima of a tile, faint ones too.

    Parameters
    ----------
    image : BeadImage
    channel : int
    tile : Box
        In voxels of the image.
    height : float
    fwhm : (3,) float64
        Of the typical spot.
    """
    # Two beads side by side are taken for a wide one until they are looked at more finely.
    fine = np.array([fwhm[0], *[min(fwhm[1:])] * 2])
    sigma = _SMOOTHED * fine / FWHM_PER_SIGMA
    size = [2 * math.ceil(0.5 * w) + 1 for w in fine]
    margin = [math.ceil(w) + 4 for w in fwhm]
    start = Zyx(*(a - m for a, m in zip(tile.start, margin, strict=True)))
    stop = Zyx(*(b + m for b, m in zip(tile.stop, margin, strict=True)))
    read = Box(start, stop).clipped(image.shape[1:])
    smooth = ndimage.gaussian_filter(_read(image, channel, read), sigma)
    level, noise = _background(smooth)
    least = max(_ABOVE_NOISE * noise, FAINTEST * _NEIGHBOUR * height)
    is_peak = (smooth == ndimage.maximum_filter(smooth, size)) & (smooth > level + least)
    # Voxels of equal height next to each other are one spot.
    labels, count = ndimage.label(is_peak, np.ones((3, 3, 3)))
    found = np.array(ndimage.maximum_position(smooth, labels, range(1, count + 1)), np.intp)
    for place in found.tolist():
        at = Zyx(*(p + a for p, a in zip(place, read.start, strict=True)))
        if all(a <= p < b for a, p, b in zip(tile.start, at, tile.stop, strict=True)):
            yield Peak(float(smooth[tuple(place)]) - level, at)


def _background(smooth: NDArray[np.float32]) -> tuple[float, float]:
    """Return the level of a tile between its spots, and the scatter about it."""
    level = float(np.median(smooth))
    return level, _MAD * float(np.median(np.abs(smooth - level)))


def judged(
    image: BeadImage,
    channel: int,
    peak: Peak,
    peaks: Sequence[Peak],
    fwhm: _Floats,
    room: Zyx,
) -> tuple[str, Spot | None]:
    """Return why a spot is left out, or the Gaussian of a bead, in voxels of the volume.

    Parameters
    ----------
    image : BeadImage
    channel : int
    peak : Peak
    peaks : sequence of Peak
        All around it.
    fwhm : (3,) float64
        Of the typical spot, in voxels.
    room : Zyx
        Voxels on each side of it that the volume must have.
    """
    box = surroundings(peak.place, room)
    if box.clipped(image.shape[1:]) != box:
        return "at the border", None
    if any(_is_near(peak, other, reach_of(fwhm), fwhm) for other in peaks):
        return "with a neighbour", None
    values = image.read(channel, box)
    if values.dtype.kind in "iu" and values.max() == np.iinfo(values.dtype).max:
        return "saturated", None
    spot = fit_spot(values)
    if spot is None or spot.explained < LEAST_EXPLAINED:
        return "shape", None
    z, y, x = (c + a for c, a in zip(spot.centre, box.start, strict=True))
    return "", Spot(spot.amplitude, spot.background, (z, y, x), spot.sigma, spot.explained)


def _is_near(peak: Peak, other: Peak, reach: Zyx, fwhm: _Floats) -> bool:
    apart = [abs(a - b) for a, b in zip(peak.place, other.place, strict=True)]
    if not any(apart) or other.height < _NEIGHBOUR * peak.height:
        return False
    return all(d <= r + w for d, r, w in zip(apart, reach, fwhm, strict=True))


def alike_spots(spots: Sequence[Spot]) -> list[int]:
    """Return the numbers of the spots that are not much wider or narrower than most."""
    if not spots:
        return []
    sigmas = np.array([spot.sigma for spot in spots])
    unlike = np.abs(np.log(sigmas / np.median(sigmas, axis=0))).max(axis=1)
    return [index for index, much in enumerate(unlike) if much <= math.log(_MOST_UNLIKE)]


def _averaged(
    image: BeadImage, channel: int, beads: Sequence[tuple[Peak, Spot]], reach: Zyx
) -> _Floats:
    total: Any = 0.0
    for peak, spot in beads:
        box = surroundings(peak.place, Zyx(*(r + _SPLINE for r in reach)))
        values = image.read(channel, box).astype(np.float64)
        values -= np.median(values[border_of(values.shape)])
        for axis in range(3):
            centre = spot.centre[axis] - box.start[axis]
            weights = sampling(values.shape[axis], centre, 1.0, reach[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
        total = total + values
    return np.asarray(total / sum(spot.amplitude for _peak, spot in beads), np.float64)


def surroundings(place: Zyx, room: Zyx) -> Box:
    """Return what is read of a bead around its maximum."""
    start = Zyx(*(p - r for p, r in zip(place, room, strict=True)))
    stop = Zyx(*(p + r + 1 for p, r in zip(place, room, strict=True)))
    return Box(start, stop)
