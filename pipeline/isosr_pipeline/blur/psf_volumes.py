"""Measured and calculated PSFs: freed from their background, and brought onto a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from isosr_pipeline.blur.spots import fit_spot
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import AXES, Box
from isosr_pipeline.sources import open_source

_Floats = NDArray[np.float64]

MOST_VOXELS = 256**3
HELD = 0.999
"""Share of a PSF that is kept along each axis."""

_NOISE = 3.0
"""What is less above the background than so many standard deviations is none of a PSF."""

_MOST_NEGATIVE = 0.1
_MOST_AT_BORDER = 0.1
_MAD = 1.4826


@dataclass(frozen=True)
class PsfVolume:
    """A PSF without its background.

    Parameters
    ----------
    name : str
        Where it is from, for messages.
    values : ndarray, (z, y, x) float64
        Not negative; 0 where it is not told from noise.
    voxel_size : tuple of 3 floats
        In µm, order z, y, x.
    """

    name: str
    values: _Floats
    voxel_size: tuple[float, float, float]

    @property
    def fwhm(self) -> tuple[float, float, float]:
        """Full widths at half maximum of a fitted Gaussian, in µm, order z, y, x.

        Raises
        ------
        InputError
            When no Gaussian can be fitted.
        """
        spot = fit_spot(self.values)
        if spot is None:
            raise InputError(
                f"{self.name} is no PSF: no Gaussian can be fitted to its brightest spot; give a "
                "volume with one spot in its middle"
            )
        z, y, x = (w * size for w, size in zip(spot.fwhm, self.voxel_size, strict=True))
        return z, y, x

    def on_grid(self, voxel_size: float) -> _Floats:
        """Sample the PSF on a grid with its centre of mass on a voxel, in the middle.

        By cubic splines; where voxels of the grid are larger than its own, the mean over them.
        Cut along each axis to where 99.9 % of it lies.

        Parameters
        ----------
        voxel_size : float
            Of the grid, in µm.

        Returns
        -------
        ndarray, (z, y, x) float64
            Odd lengths, not negative, with a sum of 1.
        """
        centre = ndimage.center_of_mass(self.values)
        sampled = self.values
        for axis in range(3):
            step = voxel_size / self.voxel_size[axis]
            at = float(centre[axis])
            radius = math.ceil(max(at, sampled.shape[axis] - 1 - at) / step)
            weights = sampling(sampled.shape[axis], at, step, radius)
            sampled = np.moveaxis(np.tensordot(weights, sampled, (1, axis)), 0, axis)
        # Splines swing below nothing next to steep slopes.
        kernel = trimmed(sampled.clip(min=0))
        return np.asarray(kernel / kernel.sum(), np.float64)


def read_psf(path: Path, voxel_size: tuple[float, float, float] | None = None) -> PsfVolume:
    """Read a PSF from a file, and refuse what is none.

    Parameters
    ----------
    path : Path
        A source with one channel.
    voxel_size : tuple of 3 floats, optional
        In µm, order z, y, x; None: as the file says.

    Raises
    ------
    InputError
        When it can't be read, its voxel size is not known, or it is no PSF.
    """
    source = open_source(path)
    channels, *shape = source.shape
    size = voxel_size or source.voxel_size
    if channels != 1:
        raise InputError(f"{path} has {channels} channels, and a PSF has one; save it by itself")
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"{path} has {' × '.join(map(str, shape))} voxels, too many for a PSF; cut it to where "
            "the spot is"
        )
    if size is None:
        raise InputError(f"{path} does not say its voxel size; give it as --psf-voxel-size Z,Y,X")
    z, y, x = shape
    return PsfVolume(str(path), cleaned(source.read(0, Box.whole((z, y, x))), str(path)), size)


def cleaned(volume: NDArray[Any], name: str) -> _Floats:
    """Subtract the background of a PSF, and keep what hangs together with its maximum.

    The background is the median of the outermost voxels, and noise their scatter (by the median
    deviation). Smoothed by one voxel, what hangs together stands out of it.

    Parameters
    ----------
    volume : ndarray, (z, y, x)
    name : str
        For messages.

    Returns
    -------
    ndarray, (z, y, x) float64
        Not negative; cut to where it is not 0.

    Raises
    ------
    InputError
        When there is no maximum inside, it is cut off, or much of it is below its background.
    """
    values = np.asarray(volume, np.float64)
    if min(values.shape) < 3:
        raise InputError(f"{name} has the shape {values.shape} (z, y, x), and a PSF needs 3 planes")
    if not np.isfinite(values).all():
        raise InputError(f"{name} has NaN or infinite voxels, and is no PSF; repair it first")
    border = values[border_of(values.shape)]
    background = float(np.median(border))
    signal = values - background
    # Smoothed, faint tails stand out of the noise.
    smooth = ndimage.gaussian_filter(signal, 1)
    noise, faint = (_scatter(v[border_of(v.shape)]) for v in (signal, smooth))
    peak = np.unravel_index(int(signal.argmax()), signal.shape)
    top = float(signal[peak])
    _require_peak(name, peak, top, values.shape)
    above = smooth > _NOISE * faint
    above[peak] = True
    labels, _count = ndimage.label(above, np.ones((3, 3, 3)))
    own = np.where(labels == labels[peak], signal, 0.0).clip(min=0)
    below = -float(signal[signal < -_NOISE * noise].sum())
    if below > _MOST_NEGATIVE * float(own.sum()):
        raise InputError(
            f"{name} is no PSF: what lies below its background of {background:g} amounts to "
            f"{below / own.sum():.0%} of the spot, and must be less than {_MOST_NEGATIVE:.0%}; "
            "give an intensity, neither filtered nor an amplitude"
        )
    edge = float(own[border_of(values.shape)].max())
    if edge > _MOST_AT_BORDER * top:
        raise InputError(
            f"{name} is cut off: at its border it has {edge / top:.0%} of its maximum, and may "
            f"have {_MOST_AT_BORDER:.0%}; give more around the spot"
        )
    return own[ndimage.find_objects((own > 0).astype(np.int8))[0]]


def trimmed(kernel: _Floats, held: float = HELD) -> _Floats:
    """Cut a kernel, evenly on both sides, to where most of it lies along each axis.

    Parameters
    ----------
    kernel : ndarray, (z, y, x)
        Odd lengths, not negative.
    held : float
        Share that is kept along each axis, at least.
    """
    slices = []
    for axis in range(3):
        profile = kernel.sum(axis=tuple(a for a in range(3) if a != axis))
        middle = len(profile) // 2
        sides = profile[middle:] + profile[middle::-1]
        sides[0] /= 2
        inside = np.cumsum(sides)
        radius = int(np.argmax(inside >= held * inside[-1]))
        slices.append(slice(middle - radius, middle + radius + 1))
    return kernel[tuple(slices)]


def _scatter(values: _Floats) -> float:
    """Return the standard deviation, but for outliers."""
    return _MAD * float(np.median(np.abs(values - np.median(values))))


def _require_peak(name: str, peak: tuple[np.intp, ...], top: float, shape: tuple[int, ...]) -> None:
    if top <= 0:
        raise InputError(f"{name} is no PSF: nothing is above its border; give a bright spot")
    for axis, at, length in zip(AXES, peak, shape, strict=True):
        if at in (0, length - 1):
            raise InputError(
                f"{name} is no PSF: it is brightest at its border, {axis} {int(at)} of {length}; "
                "give a volume with the spot in its middle"
            )


def border_of(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which voxels are the outermost of a volume."""
    border = np.ones(shape, np.bool_)
    border[1:-1, 1:-1, 1:-1] = False
    return border


def sampling(length: int, centre: float, step: float, radius: int) -> _Floats:
    """Return the weights by which cubic splines sample an axis, evenly about a centre.

    Parameters
    ----------
    length : int
        Of the axis, in voxels.
    centre : float
        In voxels.
    step : float
        Between samples, in voxels; samples further apart than voxels are means in between.
    radius : int
        Samples on each side of the centre; beyond the axis they are 0.

    Returns
    -------
    ndarray, (2 radius + 1, length) float64
    """
    parts = max(1, math.ceil(step))
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    places = np.arange(-radius, radius + 1)[:, None] + offsets
    at = centre + places.ravel() * step
    inside = (at >= 0) & (at <= length - 1)
    spline = make_interp_spline(np.arange(length), np.eye(length), k=min(3, length - 1))
    weights = np.where(inside[:, None], spline(at.clip(0, length - 1)), 0.0)
    return np.asarray(weights.reshape(*places.shape, length).mean(axis=1), np.float64)
