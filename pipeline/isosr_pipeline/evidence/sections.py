"""Power spectra of XY, XZ and YZ sections: by |f|, and along each of their axes.

By Parseval's theorem the mean power of all sections of a sub-volume is the mean of its 3D spectrum
over the frequencies of the axis across them, so that one transform serves for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.evidence.shells import count_shells
from isosr_pipeline.evidence.transforms import Floats, Transform, modes_of

PLANES = {"xy": (1, 2), "xz": (0, 2), "yz": (0, 1)}
"""The two axes of each section: 0, 1, 2 for z, y, x."""

_CONE_COSINE = math.cos(math.radians(20.0))


@dataclass
class SectionSpectra:
    """Sums of power spectra over sub-volumes.

    Attributes
    ----------
    power : (3, 3, shells) float64
        For XY, XZ and YZ: the mean power of all modes of each shell, and of those within 20
        degrees of the section's first and second axis, of `PLANES`. Shell k, from 1 on, is around
        ``k / (2 shells)`` cycles per voxel. White noise of variance s² has s² everywhere.
    floor : float
        Sum of the power in the corners of the 3D spectra, where there is no signal.
    count : int
        Sub-volumes.
    """

    power: Floats
    floor: float
    count: int

    @classmethod
    def of(cls, transform: Transform) -> SectionSpectra:
        """Take the spectra of a sub-volume."""
        shape = transform.modes.shape
        shells = count_shells(min(shape))
        weighted = transform.power * transform.modes.weights
        power = np.zeros((3, 3, shells))
        for plane, axes in enumerate(PLANES.values()):
            (across,) = set(range(3)) - set(axes)
            flat = weighted.sum(axis=across).ravel()
            for part, (shell, counts) in enumerate(_bins(shape, axes, shells)):
                sums = np.bincount(shell, flat, shells + 2)[1 : shells + 1]
                # Modes across are summed up as well, so that each mode of the section has many.
                power[plane, part] = sums / np.maximum(counts, 1) / shape[across]
        return cls(power, transform.floor, 1)

    def __add__(self, other: SectionSpectra) -> SectionSpectra:
        """Spectra of the sub-volumes of both."""
        return SectionSpectra(
            self.power + other.power, self.floor + other.floor, self.count + other.count
        )

    @property
    def frequency(self) -> Floats:
        """Of each shell, (shells,), in cycles per voxel."""
        shells = self.power.shape[2]
        return np.asarray(np.arange(1, shells + 1) / (2 * shells), np.float64)


@lru_cache(maxsize=6)
def _bins(
    shape: tuple[int, int, int], axes: tuple[int, int], shells: int
) -> tuple[tuple[NDArray[np.intp], Floats], ...]:
    """Return, for all modes of a section and for those near each axis, shells and their modes.

    Modes that are in none have the shell ``shells + 1``.
    """
    modes = modes_of(shape)
    # The axis across has its zero frequency first.
    (across,) = set(range(3)) - set(axes)
    size: Floats = np.asarray(modes.size.take(0, axis=across))
    counted = np.ones(size.shape)
    if across != 2:
        counted *= modes.weights
    shell = np.minimum(np.rint(size * 2 * shells).astype(np.intp), shells + 1)
    found = []
    for axis in (None, *axes):
        inside: NDArray[np.bool_] = np.ones(size.shape, np.bool_)
        if axis is not None:
            inside = np.asarray(modes.within(axis, _CONE_COSINE).take(0, axis=across))
        own = np.where(inside, shell, shells + 1).ravel()
        counts = np.bincount(own, counted.ravel(), shells + 2)[1 : shells + 1]
        found.append((own, np.asarray(counts, np.float64)))
    return tuple(found)
