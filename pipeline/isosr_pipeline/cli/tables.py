"""Figures as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from isosr_pipeline.evidence.results import Evaluation


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


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
