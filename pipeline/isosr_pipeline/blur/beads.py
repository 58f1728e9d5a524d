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

from isosr_pipeline.blur.axial import FWHM_PER_SIGMA
from isosr_pipeline.blur.psf_volumes import border_of, sampling
from isosr_pipeline.blur.spots import Spot, fit_spot
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx, blocks

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
_FAINTEST = 0.25
"""Height of the faintest bead, over that of the typical one."""
_NEIGHBOUR = 0.1
"""Height of the brightest neighbour that a bead may have, over its own."""
_LEAST_EXPLAINED = 0.5
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


class _Peak(NamedTuple):
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
    height, fwhm = _typical(image, channel, name)
    peaks = list(_peaks(image, channel, height, fwhm))
    peaks = sorted(peaks, reverse=True)[:_MOST]
    reach = Zyx(*(math.ceil(_REACH * w) for w in fwhm))
    rejected: Counter[str] = Counter()
    fitted: list[tuple[_Peak, Spot]] = []
    for peak in peaks:
        if peak.height < _FAINTEST * height:
            continue
        reason, spot = _judged(image, channel, peak, peaks, reach, fwhm)
        if spot is None:
            rejected[reason] += 1
        else:
            fitted.append((peak, spot))
    alike = _alike(fitted)
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


def _tiles(image: BeadImage, margin: Sequence[int] = (0, 0, 0)) -> Iterator[tuple[Box, Box]]:
    """Yield the tiles of an image, and what is read for each."""
    shape = image.shape[1:]
    for tile in blocks(Box.whole(shape), _TILE):
        start = Zyx(*(a - m for a, m in zip(tile.start, margin, strict=True)))
        stop = Zyx(*(b + m for b, m in zip(tile.stop, margin, strict=True)))
        yield tile, Box(start, stop).clipped(shape)


def _read(image: BeadImage, channel: int, box: Box, name: str = "") -> NDArray[np.float32]:
    values = image.read(channel, box).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} has NaN or infinite voxels in {box}; repair them first")
    return values


def _typical(image: BeadImage, channel: int, name: str) -> tuple[float, _Floats]:
    """Return height and widths at half maximum of the brightest spots: their medians."""
    brightest: list[_Peak] = []
    for tile, read in _tiles(image):
        smooth = ndimage.gaussian_filter(_read(image, channel, read, name), 1)
        place = np.argwhere(smooth == smooth.max())[0]
        level, noise = _background(smooth)
        height = float(smooth.max()) - level
        if height > _ABOVE_NOISE * noise:
            at = Zyx(*(int(p) + a for p, a in zip(place.tolist(), tile.start, strict=True)))
            brightest = sorted([*brightest, _Peak(height, at)], reverse=True)[:_FIRST]
    found = []
    for peak in brightest:
        half = Zyx(*(n // 2 for n in _TILE))
        start = Zyx(*(p - h for p, h in zip(peak.place, half, strict=True)))
        stop = Zyx(*(p + h for p, h in zip(peak.place, half, strict=True)))
        spot = fit_spot(_read(image, channel, Box(start, stop).clipped(image.shape[1:])))
        if spot is not None and spot.explained >= _LEAST_EXPLAINED:
            found.append((spot.amplitude, *spot.fwhm))
    if not found:
        raise InputError(
            f"{name} shows no bead: no bright spot in it is like a Gaussian; give a volume of "
            "single beads, smaller than the microscope resolves"
        )
    height, *fwhm = np.median(found, axis=0)
    return float(height), np.maximum(fwhm, 1.0)


def _peaks(image: BeadImage, channel: int, height: float, fwhm: _Floats) -> Iterator[_Peak]:
    """Yield local maxima, faint ones too."""
    # Two beads side by side are taken for a wide one until they are looked at more finely.
    fine = np.array([fwhm[0], *[min(fwhm[1:])] * 2])
    sigma = _SMOOTHED * fine / FWHM_PER_SIGMA
    size = [2 * math.ceil(0.5 * w) + 1 for w in fine]
    margin = [math.ceil(w) + 4 for w in fwhm]
    for tile, read in _tiles(image, margin):
        smooth = ndimage.gaussian_filter(_read(image, channel, read), sigma)
        level, noise = _background(smooth)
        least = max(_ABOVE_NOISE * noise, _FAINTEST * _NEIGHBOUR * height)
        is_peak = (smooth == ndimage.maximum_filter(smooth, size)) & (smooth > level + least)
        # Voxels of equal height next to each other are one spot.
        labels, count = ndimage.label(is_peak, np.ones((3, 3, 3)))
        found = np.array(ndimage.maximum_position(smooth, labels, range(1, count + 1)), np.intp)
        for place in found.tolist():
            at = Zyx(*(p + a for p, a in zip(place, read.start, strict=True)))
            if all(a <= p < b for a, p, b in zip(tile.start, at, tile.stop, strict=True)):
                yield _Peak(float(smooth[tuple(place)]) - level, at)


def _background(smooth: NDArray[np.float32]) -> tuple[float, float]:
    """Return the level of a tile between its spots, and the scatter about it."""
    level = float(np.median(smooth))
    return level, _MAD * float(np.median(np.abs(smooth - level)))


def _judged(
    image: BeadImage,
    channel: int,
    peak: _Peak,
    peaks: Sequence[_Peak],
    reach: Zyx,
    fwhm: _Floats,
) -> tuple[str, Spot | None]:
    """Return why a spot is left out, or the Gaussian of a bead, in voxels of the volume."""
    box = _around(peak.place, reach)
    if box.clipped(image.shape[1:]) != box:
        return "at the border", None
    if any(_is_near(peak, other, reach, fwhm) for other in peaks):
        return "with a neighbour", None
    values = image.read(channel, box)
    if values.dtype.kind in "iu" and values.max() == np.iinfo(values.dtype).max:
        return "saturated", None
    spot = fit_spot(values)
    if spot is None or spot.explained < _LEAST_EXPLAINED:
        return "shape", None
    z, y, x = (c + a for c, a in zip(spot.centre, box.start, strict=True))
    return "", Spot(spot.amplitude, spot.background, (z, y, x), spot.sigma, spot.explained)


def _is_near(peak: _Peak, other: _Peak, reach: Zyx, fwhm: _Floats) -> bool:
    apart = [abs(a - b) for a, b in zip(peak.place, other.place, strict=True)]
    if not any(apart) or other.height < _NEIGHBOUR * peak.height:
        return False
    return all(d <= r + w for d, r, w in zip(apart, reach, fwhm, strict=True))


def _alike(fitted: list[tuple[_Peak, Spot]]) -> list[tuple[_Peak, Spot]]:
    """Leave out beads that are much wider or narrower than most."""
    if not fitted:
        return []
    sigmas = np.array([spot.sigma for _peak, spot in fitted])
    unlike = np.abs(np.log(sigmas / np.median(sigmas, axis=0))).max(axis=1)
    pairs = zip(fitted, unlike, strict=True)
    return [one for one, much in pairs if much <= math.log(_MOST_UNLIKE)]


def _averaged(
    image: BeadImage, channel: int, beads: list[tuple[_Peak, Spot]], reach: Zyx
) -> _Floats:
    total: Any = 0.0
    for peak, spot in beads:
        box = _around(peak.place, reach)
        values = image.read(channel, box).astype(np.float64)
        values -= np.median(values[border_of(values.shape)])
        for axis in range(3):
            centre = spot.centre[axis] - box.start[axis]
            weights = sampling(values.shape[axis], centre, 1.0, reach[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
        total = total + values
    return np.asarray(total / sum(spot.amplitude for _peak, spot in beads), np.float64)


def _around(place: Zyx, reach: Zyx) -> Box:
    """Return what is read of a bead, whose centre lies within a voxel or two of its maximum."""
    start = Zyx(*(p - r - _SPLINE for p, r in zip(place, reach, strict=True)))
    stop = Zyx(*(p + r + _SPLINE + 1 for p, r in zip(place, reach, strict=True)))
    return Box(start, stop)
