"""``isosr-pipeline trust``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from isosr_pipeline.cli.options import (
    StepCommand,
    cluster_options,
    existing_options,
    setting,
    settings_from,
)
from isosr_pipeline.cli.tables import show_trust
from isosr_pipeline.settings import IfExists, TrustSettings
from isosr_pipeline.site_files import device_on


@click.command(
    "trust", cls=StepCommand, example="isosr-pipeline trust brain.zarr restored.zarr model/"
)
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("restored", type=click.Path(path_type=Path))
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path), required=False)
@setting(TrustSettings, "channel", "N,...", "Channels of RESTORED, from 0; default: all.")
@setting(TrustSettings, "cell", "auto|Z,Y,X", "What is judged together, in voxels of RESTORED.")
@setting(TrustSettings, "axial_fwhm", "UM", "Blur along z in µm; default: what MODEL knows.")
@setting(TrustSettings, "tolerance", "SHARE", "Of the light that may be too much or missing.")
@setting(TrustSettings, "threshold", "SIGMAS", "Beyond which a cell is flagged.")
@setting(TrustSettings, "worst", "N", "How many places are named.")
@setting(TrustSettings, "device", "auto|cpu|cuda", "auto: the GPU if there is one.")
@setting(TrustSettings, "timeout", "MINUTES", "What takes longer is given to another worker.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@existing_options
@cluster_options
def command(
    store: Path,
    restored: Path,
    model: str,
    out: Path | None,
    as_json: bool,
    if_exists: IfExists,
    cluster: str,
    workers: int | None,
    **given: Any,
) -> None:
    """Map where RESTORED, blurred once more, does not explain STORE beyond its noise.

    MODEL, which it was restored with, knows the blur. OUT is an OME-Zarr store whose voxels are
    cells; without it the map goes beside RESTORED: restored.trust.zarr.
    """
    settings = settings_from(TrustSettings, given)
    device = device_on(cluster, settings.device)
    settings = settings.model_copy(update={"device": device})
    from isosr_pipeline.clusters import cluster_for
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.trust import trust

    reporter = reporter_for(sys.stderr)
    summary = trust(
        store,
        restored,
        model,
        settings,
        cluster_for(device, cluster, workers, say=reporter.say),
        out=out,
        if_exists=if_exists,
        reporter=reporter,
    )
    if as_json:
        click.echo(summary.model_dump_json(indent=2))
    else:
        show_trust(summary)
