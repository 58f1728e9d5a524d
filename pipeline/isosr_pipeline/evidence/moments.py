"""Moments of an image and its reference, and what follows from them: fit, MSE, PSNR, NRMSE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError

_Floats = NDArray[np.float64]

# Below this share of the reference's variance a residual is rounding of float64.
_RESOLVED = 1e-13


def as_pair(reference: NDArray[Any], image: NDArray[Any]) -> tuple[_Floats, _Floats]:
    """Return a reference and an image as float64.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    if reference.shape != image.shape:
        raise InputError(
            f"image: shape {image.shape} differs from the reference's {reference.shape}; "
            "compare blocks of the same region and sampling"
        )
    return np.asarray(reference, np.float64), np.asarray(image, np.float64)


@dataclass
class Moments:
    """First and second moments of a reference and an image, accumulated in float64.

    Figures with ``fitted=True`` are of ``gain * image + offset``, the least-squares fit of the
    image to the reference, and do not depend on the image's intensity units; those with
    ``fitted=False`` are of the image as it is.

    Attributes
    ----------
    count : int
        Voxels seen.
    reference_mean, image_mean : float
        Means.
    reference_scatter, image_scatter, cross_scatter : float
        Sums of squares, and of products, of deviations from the means.
    squared_difference : float
        Sum of ``(reference - image)**2``.
    reference_min, reference_max : float
        Extremes of the reference.
    """

    count: int = 0
    reference_mean: float = 0.0
    image_mean: float = 0.0
    reference_scatter: float = 0.0
    image_scatter: float = 0.0
    cross_scatter: float = 0.0
    squared_difference: float = 0.0
    reference_min: float = math.inf
    reference_max: float = -math.inf

    def update(self, reference: NDArray[Any], image: NDArray[Any]) -> None:
        """Add a block.

        Parameters
        ----------
        reference, image : (z, y, x) of any real dtype
            The same region of both; any number of axes and voxels, also none.

        Raises
        ------
        InputError
            If the shapes differ, or a voxel is NaN or infinite.
        """
        if reference.size or image.size:
            self._merge(_block_moments(*as_pair(reference, image)))

    def __add__(self, other: Moments) -> Moments:
        """Moments of the blocks of both."""
        total = Moments()
        total._merge(self)
        total._merge(other)
        return total

    def _merge(self, other: Moments) -> None:
        """Chan, Golub and LeVeque's pairwise update, which does not cancel as plain sums do."""
        if not other.count:
            return
        total = self.count + other.count
        reference_step = other.reference_mean - self.reference_mean
        image_step = other.image_mean - self.image_mean
        weight = self.count * (other.count / total)
        self.reference_scatter += other.reference_scatter + weight * reference_step**2
        self.image_scatter += other.image_scatter + weight * image_step**2
        self.cross_scatter += other.cross_scatter + weight * reference_step * image_step
        self.reference_mean += reference_step * (other.count / total)
        self.image_mean += image_step * (other.count / total)
        self.squared_difference += other.squared_difference
        self.reference_min = min(self.reference_min, other.reference_min)
        self.reference_max = max(self.reference_max, other.reference_max)
        self.count = total

    @property
    def gain(self) -> float:
        """Factor of the least-squares fit ``gain * image + offset``; 0 for a constant image."""
        return self.cross_scatter / self.image_scatter if self.image_scatter > 0 else 0.0

    @property
    def offset(self) -> float:
        """Offset of the least-squares fit; the reference's mean for a constant image."""
        return self.reference_mean - self.gain * self.image_mean

    def mse(self, *, fitted: bool) -> float:
        """Mean squared error, in squared intensity units of the reference.

        A fitted error below 1e-13 of the reference's variance is not resolved and reads 0.

        Raises
        ------
        InputError
            If no voxel was seen.
        """
        if not self.count:
            raise InputError("reference: no voxels were compared; give at least one block")
        if not fitted:
            return self.squared_difference / self.count
        residual = self.reference_scatter - self.gain * self.cross_scatter
        if residual <= _RESOLVED * self.reference_scatter:
            return 0.0
        return residual / self.count

    def psnr(self, *, fitted: bool) -> float:
        """Peak signal-to-noise ratio, ``10 log10(peak**2 / mse)``, dB.

        The peak is the maximum of the reference. Infinite where the error is 0.

        Raises
        ------
        InputError
            If no voxel was seen.
        """
        error = self.mse(fitted=fitted)
        if error == 0:
            return math.inf
        if self.reference_max == 0:
            return -math.inf
        return 10.0 * math.log10(self.reference_max**2 / error)

    def nrmse(self, *, fitted: bool) -> float:
        """Root-mean-square error over the reference's root mean square ("euclidean" norm).

        Equals ``skimage.metrics.normalized_root_mse(..., normalization="euclidean")``.
        Infinite for a reference of zeros that is not matched.

        Raises
        ------
        InputError
            If no voxel was seen.
        """
        error = self.mse(fitted=fitted)
        power = self.reference_scatter / self.count + self.reference_mean**2
        if error == 0:
            return 0.0
        return math.sqrt(error / power) if power > 0 else math.inf


def _block_moments(reference: _Floats, image: _Floats) -> Moments:
    with np.errstate(invalid="ignore"):
        difference = reference - image
    if not np.isfinite(difference).all():
        raise InputError(
            "image: NaN or infinite voxels in the image or its reference cannot be compared; "
            "mask or repair them first"
        )
    # Shifted by the first voxel first, so that a constant block has a scatter of exactly 0.
    r, i = reference - reference.flat[0], image - image.flat[0]
    r_mean, i_mean = float(r.mean()), float(i.mean())
    r -= r_mean
    i -= i_mean
    return Moments(
        count=reference.size,
        reference_mean=float(reference.flat[0]) + r_mean,
        image_mean=float(image.flat[0]) + i_mean,
        reference_scatter=float(np.vdot(r, r)),
        image_scatter=float(np.vdot(i, i)),
        cross_scatter=float(np.vdot(r, i)),
        squared_difference=float(np.vdot(difference, difference)),
        reference_min=float(reference.min()),
        reference_max=float(reference.max()),
    )
