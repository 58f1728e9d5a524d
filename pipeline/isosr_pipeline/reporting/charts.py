"""Charts of what `evaluate` measured: spectra, shell correlation, widths, sections, slabs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from isosr_pipeline.drawing import AFTER, BEFORE, FAINT
from isosr_pipeline.evidence.results import Drift, Evaluation, Figures
from isosr_pipeline.evidence.spots import SpotComparison
from isosr_pipeline.geometry import AXES
from isosr_pipeline.reporting.curves import Chart, Curve, histogram

_THRESHOLD = 1 / 7


class ChartSection(NamedTuple):
    """Charts under a heading.

    Parameters
    ----------
    title : str
    explanation : str
    charts : list of Chart
    """

    title: str
    explanation: str
    charts: list[Chart]


def chart_sections(evaluation: Evaluation) -> Iterator[ChartSection]:
    """Yield what there is to draw of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
    """
    before, after = evaluation.before, evaluation.after
    if before.spectra is not None and after.spectra is not None:
        yield ChartSection(
            "Power spectra",
            "Of XY sections in all directions, and of XZ and YZ sections along each of their "
            "axes. After restoration, power along z should reach that along x and y.",
            list(_spectra(before, after)),
        )
    if before.correlation is not None and after.correlation is not None:
        yield ChartSection(
            "Fourier shell correlation (FRC/FSC)",
            "Of even with odd rows, along each axis. The resolution is told where a curve first "
            "falls below 1/7 (broken line). It says how far detail is above noise, not that it is "
            "true.",
            list(_correlations(before, after)),
        )
    spots = evaluation.spots
    if spots is not None and spots.count:
        yield ChartSection(
            "Widths of spots",
            f"Full widths at half maximum of Gaussians fitted to {spots.count} isolated spots.",
            list(_widths(spots)),
        )
    if evaluation.rois is not None:
        yield ChartSection(
            "Sections against the reference",
            f"PSNR of {len(evaluation.rois.regions)} sections, and what restoration adds.",
            list(_sections(evaluation)),
        )
    if evaluation.drift is not None:
        yield ChartSection(
            "Intensity along z",
            "Mean intensities of slabs: both curves should be one.",
            [_slabs(evaluation.drift)],
        )


def _spectra(before: Figures, after: Figures) -> Iterator[Chart]:
    labels = ("frequency (cycles/µm)", "power (intensity²)")
    sides = (("input", before, BEFORE), ("restored", after, AFTER))
    curves = []
    for label, figures, colour in sides:
        found = (figures.spectra or {})["xy"]
        curves.append(Curve(label, found.frequency_per_um, found.power, colour))
    yield Chart("XY", *labels, curves, log_y=True)
    for plane in ("xz", "yz"):
        curves = []
        for label, figures, colour in sides:
            found = (figures.spectra or {})[plane]
            for axis, power in found.power_along.items():
                style: Literal["line", "broken"] = "line" if axis == "z" else "broken"
                x = found.frequency_per_um
                curves.append(Curve(f"{label}, along {axis}", x, power, colour, style))
        yield Chart(plane.upper(), *labels, curves, log_y=True)


def _correlations(before: Figures, after: Figures) -> Iterator[Chart]:
    for axis in AXES:
        curves = []
        for label, figures, colour in (("input", before, BEFORE), ("restored", after, AFTER)):
            found = (figures.correlation or {})[axis]
            curves.append(Curve(label, found.frequency_per_um, found.correlation, colour))
        ends = [x for curve in curves for x in curve.x]
        level = Curve("1/7", [min(ends), max(ends)], [_THRESHOLD] * 2, FAINT, "broken")
        yield Chart(f"along {axis}", "frequency (cycles/µm)", "correlation", [*curves, level])


def _widths(spots: SpotComparison) -> Iterator[Chart]:
    for index, axis in enumerate(AXES):
        before = [pair.before.fwhm_um[index] for pair in spots.pairs]
        after = [pair.after.fwhm_um[index] for pair in spots.pairs]
        groups = [("input", before, BEFORE), ("restored", after, AFTER)]
        yield histogram(f"along {axis}", "FWHM (µm)", groups)


def _sections(evaluation: Evaluation) -> Iterator[Chart]:
    regions = evaluation.rois.regions if evaluation.rois else ()
    before = [one.psnr_before_db for one in regions]
    after = [one.psnr_after_db for one in regions]
    yield histogram("PSNR", "PSNR (dB)", [("input", before, BEFORE), ("restored", after, AFTER)])
    yield histogram("gain", "gain (dB)", [("", [one.gain_db for one in regions], AFTER)])


def _slabs(drift: Drift) -> Chart:
    middles = [(a + b) / 2 for a, b in zip(drift.borders_um, drift.borders_um[1:], strict=False)]
    curves = [
        Curve("input", middles, drift.before, BEFORE),
        Curve("restored", middles, drift.after, AFTER),
    ]
    return Chart("slabs", "z (µm)", "mean intensity", curves)
