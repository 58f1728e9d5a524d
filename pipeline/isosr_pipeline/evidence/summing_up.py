"""Makes results, in µm, of what was summed up over cubes, blocks and regions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.evidence.cubes import CubeSums
from isosr_pipeline.evidence.distribution import Distribution
from isosr_pipeline.evidence.drift import CoarsePart
from isosr_pipeline.evidence.extremes import ExtremeCounts
from isosr_pipeline.evidence.results import (
    Comparison,
    Drift,
    Extremes,
    Figures,
    RestoredCounts,
    RoiComparison,
    RoiFigures,
    Sharpness,
    ShellCorrelation,
    Spectrum,
)
from isosr_pipeline.evidence.rois import RegionFigures, plane_of
from isosr_pipeline.evidence.sections import PLANES, SectionSpectra
from isosr_pipeline.evidence.shells import ShellSums
from isosr_pipeline.evidence.slopes import SlopeSums
from isosr_pipeline.geometry import AXES
from isosr_pipeline.seams import SeamScore
from isosr_pipeline.store.metadata import Provenance

_Floats = NDArray[np.float64]


def figures_of(
    sums: CubeSums | None, compared: Comparison | None, voxel_um: float, is_float: bool
) -> Figures:
    """Return the figures of a volume.

    Parameters
    ----------
    sums : CubeSums or None
    compared : Comparison or None
    voxel_um : float
        Edge of the isotropic voxels.
    is_float : bool
        Whether the volume is stored as floats, which have no highest value.
    """
    if sums is None:
        return Figures(
            axial_lateral_ratio=None,
            sharpness=None,
            correlation=None,
            spectra=None,
            extremes=None,
            against_reference=compared,
        )
    ratio = sums.ratio.ratio
    return Figures(
        axial_lateral_ratio=None if math.isnan(ratio) else ratio,
        sharpness=_sharpness(sums.slopes, voxel_um),
        correlation=_correlation(sums.shells, voxel_um),
        spectra=_spectra(sums.sections, voxel_um),
        extremes=_extremes(sums.extremes, is_float),
        against_reference=compared,
    )


def _sharpness(slopes: SlopeSums, voxel_um: float) -> Sharpness | None:
    if slopes.sharpness is None:
        return None
    z, y, x = (slope / voxel_um for slope in slopes.sharpness)
    return Sharpness(z_per_um=z, y_per_um=y, x_per_um=x, axial_lateral_ratio=2 * z / (y + x))


def _correlation(shells: ShellSums, voxel_um: float) -> dict[str, ShellCorrelation]:
    found = {}
    for axis, name in enumerate(AXES):
        resolved, noise = shells.resolved(axis), shells.noise_correlation(axis)
        found[name] = ShellCorrelation(
            frequency_per_um=tuple((shells.frequency / voxel_um).tolist()),
            correlation=tuple(shells.correlation(axis).tolist()),
            resolution_um=voxel_um / resolved if resolved else None,
            at_limit=resolved == 0.5,
            noise_correlation=noise,
            noise_correlates=shells.noise_correlates(axis),
        )
    return found


def _spectra(sections: SectionSpectra, voxel_um: float) -> dict[str, Spectrum]:
    power = sections.power / sections.count
    return {
        plane: Spectrum(
            frequency_per_um=tuple((sections.frequency / voxel_um).tolist()),
            power=tuple(power[index, 0].tolist()),
            power_along={
                AXES[axis]: tuple(power[index, 1 + side].tolist()) for side, axis in enumerate(axes)
            },
            noise_power=sections.floor / sections.count,
        )
        for index, (plane, axes) in enumerate(PLANES.items())
    }


def _extremes(counts: ExtremeCounts, is_float: bool) -> Extremes:
    return Extremes(
        voxels=counts.voxels,
        zero_share=counts.zeros / counts.voxels,
        saturated_share=None if is_float else counts.top / counts.voxels,
        low=counts.low,
        high=counts.high,
    )


def rois_of(found: Sequence[RegionFigures], how: str) -> RoiComparison:
    """Return what was found in regions, each with figures before and after.

    Parameters
    ----------
    found : sequence of RegionFigures
    how : str
        The regions were chosen.
    """
    regions = []
    for one in found:
        (before, after), (similar, then) = one.psnr, one.ms_ssim
        regions.append(
            RoiFigures(
                plane=plane_of(one.box),
                start=one.box.start,
                shape=one.box.shape,
                psnr_before_db=before,
                psnr_after_db=after,
                gain_db=0.0 if before == after else after - before,
                ms_ssim_before=similar,
                ms_ssim_after=then,
            )
        )
    return RoiComparison(
        how=how,
        psnr_before_db=Distribution.of(r.psnr_before_db for r in regions),
        psnr_after_db=Distribution.of(r.psnr_after_db for r in regions),
        gain_db=Distribution.of(r.gain_db for r in regions),
        ms_ssim_before=Distribution.of(r.ms_ssim_before for r in regions),
        ms_ssim_after=Distribution.of(r.ms_ssim_after for r in regions),
        improved_share=sum(r.gain_db > 0 for r in regions) / len(regions),
        regions=tuple(regions),
    )


def drift_of(
    borders: NDArray[np.int64],
    before: CoarsePart | None,
    after: CoarsePart | None,
    voxel_um: float,
) -> Drift | None:
    """Return the drift of slabs; None where it is not known, or the input shows nothing.

    Parameters
    ----------
    borders : ndarray, (slabs + 1,) int64
        In planes.
    before, after : CoarsePart or None
    voxel_um : float
        Distance of two planes.
    """
    if before is None or after is None or (background := before.background) is None:
        return None
    first, second = before.means(borders), after.means(borders)
    signal = float(np.average(first, weights=np.diff(borders))) - background
    if not signal > 0 or not math.isfinite(signal):
        return None
    change = (second - first) / signal
    return Drift(
        borders_um=tuple((borders * voxel_um).tolist()),
        before=tuple(first.tolist()),
        after=tuple(second.tolist()),
        background=background,
        relative_change=tuple(change.tolist()),
        largest_relative_change=float(change[np.abs(change).argmax()]),
    )


def counts_of(history: Sequence[Provenance], shape: tuple[int, ...]) -> RestoredCounts | None:
    """Return what `restore` counted, as the volume's history tells.

    Parameters
    ----------
    history : sequence of Provenance
        Of the restored volume.
    shape : tuple of 4 ints
        Of the restored volume.
    """
    figures = _figures_of_restore(history)
    counted = {name: figures.get(name) for name in ("clipped", "saturated", "passed")}
    if None in counted.values():
        return None
    return RestoredCounts.model_validate({"voxels": math.prod(shape), **counted})


def seams_of(history: Sequence[Provenance], channel: int) -> SeamScore | None:
    """Return the seam score that `restore` measured in its first channel.

    Parameters
    ----------
    history : sequence of Provenance
        Of the restored volume.
    channel : int
        Of the restored volume.
    """
    found = _figures_of_restore(history).get("seams")
    return None if channel or found is None else SeamScore.model_validate(found)


def _figures_of_restore(history: Sequence[Provenance]) -> dict[str, object]:
    return history[-1].figures if history and history[-1].step == "restore" else {}
