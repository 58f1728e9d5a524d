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
    switch,
)
from isosr_pipeline.settings import IfExists, RestoreSettings
from isosr_pipeline.site_files import device_on


@click.command(
    "restore", cls=StepCommand, example="isosr-pipeline restore brain.zarr model/ restored.zarr"
)
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@setting(RestoreSettings, "roi", "Z0:Z1,Y0:Y1,X0:X1", "A part only; in voxels, or µm with um.")
@setting(RestoreSettings, "channel", "N,...", "Channels to restore, from 0; default: all.")
@setting(RestoreSettings, "scheme", "exact|paper", "paper: blocks as in the publication.")
@setting(RestoreSettings, "block", "auto|Z,Y,X", "What the network gives at once, in voxels.")
@setting(RestoreSettings, "halo", "N", "Context around blocks; default: the receptive field.")
@setting(RestoreSettings, "precision", "auto|32|bf16", "auto: bf16 where all workers have it.")
@switch(RestoreSettings, "skip_empty", "Only resample where nothing exceeds the floor.")
@setting(RestoreSettings, "floor", "INTENSITY", "Of --skip-empty; default: the window's LOW.")
@setting(RestoreSettings, "window", "LOW,HIGH", "Intensities that are 0 and 1; default: recorded.")
@setting(RestoreSettings, "chunk", "Z,Y,X", "Of the output, in voxels.")
@setting(RestoreSettings, "shard", "Z,Y,X", "Of the output, one region; default: from the shape.")
@setting(RestoreSettings, "device", "auto|cpu|cuda", "auto: the GPU if there is one.")
@setting(RestoreSettings, "timeout", "MINUTES", "What takes longer is given to another worker.")
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
    device = device_on(cluster, settings.device)
    settings = settings.model_copy(update={"device": device})
    from isosr_pipeline.clusters import cluster_for
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.restore import restore

    reporter = reporter_for(sys.stderr)
    restore(
        store,
        model,
        out,
        settings,
        cluster_for(device, cluster, workers, say=reporter.say),
        if_exists=if_exists,
        reporter=reporter,
    )
