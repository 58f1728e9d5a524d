"""``isosr-pipeline restore``."""

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
from isosr_pipeline.settings import IfExists, RestoreSettings


@click.command(
    "restore", cls=StepCommand, example="isosr-pipeline restore brain.zarr model/ restored.zarr"
)
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@setting(RestoreSettings, "block", "auto|Z,Y,X", "What the network sees at once, less the halo.")
@setting(RestoreSettings, "halo", "N", "Context on each side of a block, in voxels.")
@setting(RestoreSettings, "chunk", "Z,Y,X", "Of the output, in voxels.")
@setting(RestoreSettings, "shard", "Z,Y,X", "Of the output, one region; default: from the shape.")
@setting(RestoreSettings, "window", "LOW,HIGH", "Intensities that are 0 and 1; default: recorded.")
@setting(RestoreSettings, "device", "auto|cpu|cuda", "auto: the GPU if there is one.")
@existing_options
@cluster_options
def command(
    store: Path,
    model: str,
    out: Path,
    if_exists: IfExists,
    cluster: str,
    workers: int | None,
    **given: Any,
) -> None:
    """Restore STORE with MODEL, a folder that train wrote, into the OME-Zarr store OUT.

    MODEL may be the word identity: the volume is resampled to isotropic voxels, nothing more.
    """
    settings = settings_from(RestoreSettings, given)
    from isosr_pipeline.devices import cluster_for
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.restore import restore

    restore(
        store,
        model,
        out,
        settings,
        cluster_for(settings.device, cluster, workers),
        if_exists=if_exists,
        reporter=reporter_for(sys.stderr),
    )
