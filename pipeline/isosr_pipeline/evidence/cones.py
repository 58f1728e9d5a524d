"""The axial/lateral ratio: spectral amplitude along z against that along y and x."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.evidence.transforms import Transform, modes_of

_Floats = NDArray[np.float64]

_BAND = (0.05, 0.25)
_SHELLS = 8
_CONE_COSINE = math.cos(math.radians(40.0))
# Averages over the few modes of a shell scatter, so signal counts where it matches the noise.
_MIN_SIGNAL = 0.5


@dataclass
class SpectrumRatio:
    """Axial over lateral spectral amplitude of a volume, without a reference.

    1 for an isotropic volume, below 1 for one blurred along z; unchanged when all intensities
    are scaled or shifted. Of each sub-volume, less its mean and under a 3-D Hann window, the
    power spectrum is averaged in shells of ``|f|`` (8 from 0.05 to 0.25 cycles per voxel) inside
    cones of 40 degrees around the frequency axes z, y and x. The spectra of all sub-volumes are
    added. With ``P_a`` the power in the cone of axis ``a``, ``L = (P_y + P_x) / 2``, and ``N`` the
    noise floor (mean power at ``|f|`` of 0.5 and more, the corners of the spectrum, where a
    sampled image has no signal), the ratio is ::

        sqrt( sum over shells of (P_z - N) / L  /  sum over shells of (L - N) / L )

    Dividing by ``L`` gives every frequency the same say although a specimen's power falls
    steeply, and fades out noisy ones; shells in which less than half the lateral power is signal
    are left out. The measure assumes that the specimen has no preferred direction and that voxels
    are isotropic: resample an anisotropic volume first. A field of 64 µm of neurites scatters by
    about 4 % around 1.

    Attributes
    ----------
    power : (3, 8) float64
        Sum over sub-volumes of the mean power in each cone (z, y, x) and shell.
    floor : (8,) float64
        Sum over sub-volumes of the noise floor, for the shells that had modes in all cones.
    """

    power: _Floats = field(default_factory=lambda: np.zeros((3, _SHELLS)))
    floor: _Floats = field(default_factory=lambda: np.zeros(_SHELLS))

    @classmethod
    def of(cls, transform: Transform) -> SpectrumRatio:
        """Take the spectra of a sub-volume of isotropic voxels, cubic and best 64 long or more.

        A constant one carries no signal and changes nothing.
        """
        cells, counts = _mode_cells(transform.modes.shape)
        weighted = (transform.power * transform.modes.weights).ravel()
        sums = np.bincount(cells, weighted, minlength=3 * _SHELLS + 1)[:-1].reshape(3, _SHELLS)
        # Shells in which the grid leaves a cone empty say nothing.
        seen = counts.all(axis=0)
        power = np.where(seen, sums / np.maximum(counts, 1), 0.0)
        return cls(power, np.where(seen, transform.floor, 0.0))

    def __add__(self, other: SpectrumRatio) -> SpectrumRatio:
        """Spectra of the sub-volumes of both."""
        return SpectrumRatio(self.power + other.power, self.floor + other.floor)

    @property
    def ratio(self) -> float:
        """Axial over lateral amplitude; NaN if no sub-volume carried signal."""
        lateral = self.power[1:].mean(axis=0)
        signal = lateral - self.floor
        used = signal > _MIN_SIGNAL * lateral
        if not used.any():
            return math.nan
        axial = (self.power[0] - self.floor)[used] / lateral[used]
        return math.sqrt(max(float(axial.sum() / (signal[used] / lateral[used]).sum()), 0.0))


@lru_cache(maxsize=2)
def _mode_cells(shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], _Floats]:
    """Cone and shell of every mode of the flattened spectrum.

    Returns
    -------
    cells : (modes,) int64
        ``cone * 8 + shell``; 24 for modes outside all cones or the band.
    counts : (3, 8) float64
        Modes in each.
    """
    modes = modes_of(shape)
    low, high = _BAND
    shell = np.floor((modes.size - low) / (high - low) * _SHELLS).astype(np.int64)
    inside = (shell >= 0) & (shell < _SHELLS)
    cells = np.full(modes.size.shape, 3 * _SHELLS, np.int64)
    for cone in range(3):
        chosen = inside & modes.within(cone, _CONE_COSINE)
        cells[chosen] = cone * _SHELLS + shell[chosen]
    weights = np.broadcast_to(modes.weights, cells.shape).ravel()
    counts = np.bincount(cells.ravel(), weights, minlength=3 * _SHELLS + 1)[:-1]
    return cells.ravel(), np.asarray(counts.reshape(3, _SHELLS), np.float64)
