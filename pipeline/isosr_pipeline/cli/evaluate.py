"""``isosr-pipeline evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from isosr_pipeline.cli.options import (
    StepCommand,
    cluster_options,
    setting,
    settings_from,
    switch,
)
from isosr_pipeline.cli.tables import show_evaluation
from isosr_pipeline.settings import EvaluateSettings


@click.command(
    "evaluate",
    cls=StepCommand,
    example="isosr-pipeline evaluate brain.zarr restored.zarr --report report.html",
)
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("restored", type=click.Path(path_type=Path))
@setting(EvaluateSettings, "reference", "PATH", "A store or another source with the truth.")
@setting(
    EvaluateSettings,
    "reference_axes",
    "AXES",
    "Axes of the reference that run along z, y, x, where it is another view: y,-z,x.",
)
@setting(
    EvaluateSettings,
    "reference_channel",
    "N",
    "Of the reference, if not that of the source that was restored, or the only one.",
)
@setting(EvaluateSettings, "channel", "N", "Of RESTORED, counted from 0.")
@click.option(
    "--roi",
    metavar="Z0:Z1,Y0:Y1,X0:X1",
    multiple=True,
    help="A section in which to compare with the reference; may be given again.",
)
@setting(EvaluateSettings, "rois", "N", "Sections that are drawn where none is given.")
@switch(EvaluateSettings, "spots", "Fit isolated bright spots, and compare their widths.")
@setting(EvaluateSettings, "seed", "N", "Of what is drawn.")
@click.option(
    "--report",
    metavar="REPORT.html",
    type=click.Path(path_type=Path),
    help="A page with pictures, charts and warnings, in one file; replaced if it is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def command(
    store: Path,
    restored: Path,
    report: Path | None,
    as_json: bool,
    cluster: str,
    workers: int | None,
    **given: Any,
) -> None:
    """Measure STORE and RESTORED, what restore made of it.

    The axial/lateral ratio of spectra, resolution along each axis, sharpness, saturation, drift
    and seams; with a reference also PSNR, SSIM, MS-SSIM and NRMSE, after a least-squares fit of the
    intensities. The table has the key figures, JSON has all of them, with spectra and regions; a
    report shows them beside pictures of both volumes.
    """
    settings = settings_from(EvaluateSettings, given)
    from isosr_pipeline.clusters import cluster_for
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.evaluate import evaluate
    from isosr_pipeline.steps.report import check_report, write_report

    if report is not None:
        check_report(report, store, restored)
    reporter = reporter_for(sys.stderr)
    evaluation = evaluate(
        store,
        restored,
        settings,
        cluster_for("cpu", cluster, workers, tasks=1, say=reporter.say),
        reporter=reporter,
    )
    if report is not None:
        write_report(evaluation, report)
    if as_json:
        click.echo(evaluation.model_dump_json(indent=2))
    else:
        show_evaluation(evaluation)
