"""Spectra of many sub-volumes taken together, and the error of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.power_spectra import Floats


@dataclass(frozen=True)
class Pool:
    """Spectra of sub-volumes, each scaled so that none counts for its brightness.

    Parameters
    ----------
    power, noise : (subvolumes, modes) float64
    """

    power: Floats
    noise: Floats

    @classmethod
    def of(cls, spectra: Sequence[tuple[Floats, Floats]]) -> Pool:
        """Scale spectra by the geometric mean of their power.

        Parameters
        ----------
        spectra : sequence of (power, noise)
            None of them without power.
        """
        power = np.array([p for p, _ in spectra])
        noise = np.array([n for _, n in spectra])
        scale = np.exp(np.log(power).mean(axis=1))[:, None]
        return cls(power / scale, noise / scale)

    def __len__(self) -> int:
        return len(self.power)

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Pool:
        """Return some of the sub-volumes."""
        return Pool(self.power[chosen], self.noise[chosen])

    @cached_property
    def mean(self) -> tuple[Floats, Floats]:
        """Power and noise, (modes,) each."""
        return self.power.mean(axis=0), self.noise.mean(axis=0)

    def without(self, index: int) -> tuple[Floats, Floats]:
        """Return means over all sub-volumes but one."""
        count = len(self)
        power, noise = self.mean
        return (
            (power * count - self.power[index]) / (count - 1),
            (noise * count - self.noise[index]) / (count - 1),
        )

    def jackknifed(self, figures: Callable[[Floats, Floats], Floats]) -> Floats:
        """Return figures (subvolumes, k), each made of all sub-volumes but one.

        Parameters
        ----------
        figures : function of power and noise, (modes,) each
            Returns (k,) float64.
        """
        return np.array([figures(*self.without(index)) for index in range(len(self))])


def jackknife_covariance(figures: Floats) -> Floats:
    """Return the covariance (k, k) of figures of which `Pool.jackknifed` made (subvolumes, k)."""
    away = figures - figures.mean(axis=0)
    return np.asarray((len(figures) - 1) / len(figures) * away.T @ away)
