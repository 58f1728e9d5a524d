"""Figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from isosr_pipeline.evidence.results import Evaluation
    from isosr_pipeline.evidence.trusted import TrustFigures
    from isosr_pipeline.trust.summary import TrustSummary


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the key figures of an evaluation on standard output.

    Parameters
    ----------
    evaluation : Evaluation
    """
    # Imported here: --help must not wait for it.
    from isosr_pipeline.evidence.key_figures import key_figures, untold

    table = Table(title="before and after restoration", title_justify="left")
    table.add_column("figure")
    for name in ("input", "restored"):
        table.add_column(name, justify="right")
    table.add_column("best is")
    for one in key_figures(evaluation):
        shown = map(_number, (one.before, one.after), one.at_most)
        table.add_row(one.name, *shown, one.best)
    console = Console(highlight=False)
    console.print(table)
    for line in (*untold(evaluation), *_remarks(evaluation)):
        console.print(line, soft_wrap=True)


def _remarks(evaluation: Evaluation) -> Iterator[str]:
    if (rois := evaluation.rois) is not None and (gain := rois.gain_db) is not None:
        yield (
            f"sections: {len(rois.regions)}; PSNR gains {gain.median:+.2f} dB (median), from "
            f"{gain.minimum:+.2f} to {gain.maximum:+.2f}; better in {rois.improved_share:.0%}"
        )
    if (spots := evaluation.spots) is not None:
        left = ", ".join(f"{count} {why}" for why, count in spots.left_out.items())
        moved = (
            ""
            if (shift := spots.lateral_mismatch_um) is None
            else (f"; lateral width changes by {shift.mean:+.3g} µm")
        )
        yield f"spots: {spots.count}{moved}; left out: {left or 'none'}"
        if not spots.count:
            yield "no spot could be fitted: take a volume with beads, or leave --spots out"
    for label, figures in (("input", evaluation.before), ("restored", evaluation.after)):
        if (found := figures.extremes) is not None and found.saturated_share:
            yield f"{label}: {found.saturated_share:.2%} of the voxels are saturated"
    if (counts := evaluation.counts) is not None and counts.clipped:
        yield f"restored: {counts.clipped} of {counts.voxels} voxels were clipped"
    if (drift := evaluation.drift) is not None:
        yield f"mean intensity of slabs along z: {drift.largest_relative_change:+.1%} at most"
    if evaluation.seams is not None:
        yield f"seams: {evaluation.seams}"
    if evaluation.trust is not None:
        yield from _trust_remarks(evaluation.trust)


def _trust_remarks(trust: TrustFigures) -> Iterator[str]:
    for one in trust.channels:
        yield (
            f"trust map, channel {one.channel}: {one.flagged_signal_share:.2%} of the cells with "
            f"signal are flagged, of all cells {one.invented_share:.2%} with too much light and "
            f"{one.missing_share:.2%} with too little"
        )
    for place in trust.worst[:1]:
        yield (
            f"trust map: the worst place is at {_place(place.position_um)} µm (z, y, x), score "
            f"{place.score_sd:+.1f}"
        )


def show_trust(summary: TrustSummary) -> None:
    """Print what a trust map comes to on standard output.

    Parameters
    ----------
    summary : TrustSummary
    """
    console = Console(highlight=False)
    table = _right(
        "what the restored volume does not explain",
        ("channel", "cells", "flagged", "of those with signal", "too much", "missing", "spread"),
    )
    for one in summary.channels:
        shares = (one.flagged, one.flagged_signal, one.invented, one.missing)
        shown = [f"{share:.3%}" for share in shares]
        table.add_row(str(one.channel), str(one.cells), *shown, f"{one.spread:.2f}")
    console.print(table)
    if summary.worst:
        console.print(_worst(summary))
    console.print(f"map: {summary.map}", soft_wrap=True)


def _worst(summary: TrustSummary) -> Table:
    names = ["channel", "score", "voxel z, y, x", "µm z, y, x"]
    is_part = any(place.grid not in (None, place.voxel) for place in summary.worst)
    if is_part:
        names[2:3] = ["voxel of the part", "of the whole volume"]
    table = _right("worst places (above 0: more light than was measured)", tuple(names))
    for place in summary.worst:
        voxels = [place.voxel, place.grid or place.voxel] if is_part else [place.voxel]
        shown = [", ".join(map(str, voxel)) for voxel in voxels]
        table.add_row(str(place.channel), f"{place.score:+.1f}", *shown, _place(place.um))
    return table


def _place(um: tuple[float, float, float]) -> str:
    return ", ".join(f"{at:.6g}" for at in um)


def _right(title: str, names: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None, at_most: bool) -> str:
    return "none" if value is None else f"{'≤ ' if at_most else ''}{value:.4g}"
