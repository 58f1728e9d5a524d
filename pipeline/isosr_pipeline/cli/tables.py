"""Figures as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from isosr_pipeline.steps.evaluate import Evaluation
    from isosr_pipeline.trust.summary import TrustSummary


def show_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation on standard output.

    Parameters
    ----------
    evaluation : Evaluation
    """
    before, after = evaluation.before, evaluation.after
    table = Table(title="before and after restoration", title_justify="left")
    table.add_column("figure")
    for name in ("input", "restored"):
        table.add_column(name, justify="right")
    table.add_column("best is")
    rows = [("axial/lateral ratio", before.axial_lateral_ratio, after.axial_lateral_ratio, "1")]
    if before.against_reference is not None and after.against_reference is not None:
        first, second = before.against_reference, after.against_reference
        rows += [
            ("PSNR (dB)", first.psnr_db, second.psnr_db, "high"),
            ("SSIM", first.ssim, second.ssim, "1"),
            ("NRMSE", first.nrmse, second.nrmse, "0"),
        ]
    for name, old, new, best in rows:
        table.add_row(name, _number(old), _number(new), best)
    Console(highlight=False).print(table)


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
        table = _right(
            "worst places (above 0: more light than was measured)",
            ("channel", "score", "voxel z, y, x", "µm z, y, x"),
        )
        for place in summary.worst:
            voxel = ", ".join(map(str, place.voxel))
            um = ", ".join(f"{at:.6g}" for at in place.um)
            table.add_row(str(place.channel), f"{place.score:+.1f}", voxel, um)
        console.print(table)
    console.print(f"map: {summary.map}", soft_wrap=True)


def _right(title: str, names: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
