"""Whether a blur changes with depth, told from the scatter between sub-volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.power_spectra import Floats

UNLIKELY = 0.001
"""Probability below which a change with depth is not put down to chance."""

_STRATA = 4
_FEWEST = 4
_LEAST_CHANGE = 0.1


@dataclass(frozen=True)
class Stratum:
    """Sub-volumes that lie at about one depth, fitted together.

    Parameters
    ----------
    first, last : float
        Depths of their centres, in lateral voxels.
    square, error : float
        Of the width, in voxels², and its standard error.
    count : int
    """

    first: float
    last: float
    square: float
    error: float
    count: int

    @property
    def sigma(self) -> float:
        """Standard deviation in voxels."""
        return math.sqrt(max(self.square, 0.0))


@dataclass(frozen=True)
class DepthTest:
    """What is known of the blur at different depths.

    Parameters
    ----------
    found : {"changes", "same", "unknown"}
        ``"unknown"``: the volume is too thin, or has too few sub-volumes that tell something.
    probability : float
        That chance gives a change as large; 1 if unknown.
    strata : tuple of Stratum
        From the first plane on; empty if unknown.
    """

    found: Literal["changes", "same", "unknown"]
    probability: float
    strata: tuple[Stratum, ...]


def test_depth(
    at: Floats,
    squares: Floats,
    told: NDArray[np.bool_],
    thickness: float,
    pooled: Callable[[NDArray[np.bool_]], Stratum],
) -> DepthTest:
    """Tell whether squares of widths change with depth, in one direction or another way.

    Parameters
    ----------
    at : (n,) float64
        Depths of the sub-volumes, in lateral voxels.
    squares : (n,) float64
        Of each by itself.
    told : (n,) bool
        Which tell something by themselves.
    thickness : float
        Of a sub-volume.
    pooled : function of (n,) bool
        Fits some sub-volumes together.
    """
    depth = at[told]
    apart = float(np.ptp(depth)) if len(depth) else 0.0
    wanted = min(_STRATA, len(depth) // _FEWEST, int(apart / (0.5 * thickness)) + 1)
    if wanted < 2:
        return DepthTest("unknown", 1.0, ())
    # It takes half a second to import, which processes of a training should not wait for.
    from scipy import stats

    inner = np.quantile(depth, np.arange(1, wanted) / wanted)
    number = np.searchsorted(inner, at, side="left")
    groups = [told & (number == k) for k in range(wanted)]
    groups = [group for group in groups if group.sum() >= 2]
    if len(groups) < 2:
        return DepthTest("unknown", 1.0, ())
    strata = tuple(pooled(group) for group in groups)
    # A trend by ranks sees steady changes; the comparison of strata sees any other, such as a
    # focus in the middle. Two tests: twice the lesser probability.
    trend = float(stats.spearmanr(depth, squares[told]).pvalue)
    among = float(stats.kruskal(*(squares[group] for group in groups)).pvalue)
    probability = min(1.0, 2 * np.nanmin([trend, among, 1.0]))
    widest, least = max(s.sigma for s in strata), min(s.sigma for s in strata)
    changes = probability < UNLIKELY and widest - least > _LEAST_CHANGE * widest
    return DepthTest("changes" if changes else "same", float(probability), strata)
