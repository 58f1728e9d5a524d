"""The figures that tell most of a restoration, in the order in which people look at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from isosr_pipeline.evidence.distribution import Distribution
from isosr_pipeline.evidence.results import Evaluation, Figures


class KeyFigure(NamedTuple):
    """A figure before and after restoration.

    Parameters
    ----------
    name : str
        With its unit.
    before, after : float or None
        None: it can't be told.
    best : str
        ``"high"``, ``"low"``, or the number that it should be.
    at_most : tuple of 2 bools
        Whether what it is before, and after, is no more than the figure, and may be less.
    """

    name: str
    before: float | None
    after: float | None
    best: str
    at_most: tuple[bool, bool] = (False, False)


def key_figures(evaluation: Evaluation) -> list[KeyFigure]:
    """Return the key figures of an evaluation; those against a reference come first."""
    return [*_with_reference(evaluation), *_without(evaluation)]


def untold(evaluation: Evaluation) -> Iterator[str]:
    """Yield why key figures are missing, a sentence for each cause."""
    for name, figures in (("input", evaluation.before), ("restored", evaluation.after)):
        curves = figures.correlation or {}
        axes = [axis for axis in ("z", "x") if axis in curves and curves[axis].noise_correlates]
        if axes:
            yield (
                f"resolution of the {name} volume along {' and '.join(axes)}: can't be told, since "
                "its noise is smooth, or there is none; only noise that is independent from voxel "
                "to voxel can be told from detail"
            )


def _with_reference(evaluation: Evaluation) -> Iterator[KeyFigure]:
    first, second = evaluation.before.against_reference, evaluation.after.against_reference
    if first is None or second is None:
        return
    yield KeyFigure("PSNR (dB)", first.psnr_db, second.psnr_db, "high")
    yield KeyFigure("SSIM", first.ssim, second.ssim, "1")
    yield KeyFigure("NRMSE", first.nrmse, second.nrmse, "0")
    if (rois := evaluation.rois) is not None:
        before, after = _median(rois.psnr_before_db), _median(rois.psnr_after_db)
        yield KeyFigure("PSNR of sections, median (dB)", before, after, "high")
        before, after = _median(rois.ms_ssim_before), _median(rois.ms_ssim_after)
        yield KeyFigure("MS-SSIM of sections, median", before, after, "1")


def _without(evaluation: Evaluation) -> Iterator[KeyFigure]:
    before, after = evaluation.before, evaluation.after
    yield KeyFigure(
        "axial/lateral ratio", before.axial_lateral_ratio, after.axial_lateral_ratio, "1"
    )
    if before.sharpness is not None and after.sharpness is not None:
        ratios = (before.sharpness.axial_lateral_ratio, after.sharpness.axial_lateral_ratio)
        yield KeyFigure("sharpness, axial/lateral", *ratios, "1")
    for axis in ("z", "x"):
        yield _resolution(before, after, axis)
    if (spots := evaluation.spots) is not None and spots.count:
        for axis in ("z", "y", "x"):
            widths = spots.fwhm[axis]
            first, second = _median(widths.before_um), _median(widths.after_um)
            yield KeyFigure(f"FWHM of spots along {axis}, median (µm)", first, second, "low")


def _median(found: Distribution | None) -> float | None:
    return None if found is None else found.median


def _resolution(before: Figures, after: Figures, axis: str) -> KeyFigure:
    first, second = (side.correlation and side.correlation[axis] for side in (before, after))
    return KeyFigure(
        f"resolution along {axis} (µm)",
        first.resolution_um if first else None,
        second.resolution_um if second else None,
        "low",
        (bool(first and first.at_limit), bool(second and second.at_limit)),
    )
