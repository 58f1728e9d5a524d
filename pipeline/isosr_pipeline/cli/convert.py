"""``isosr-pipeline convert``."""

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
from isosr_pipeline.settings import ConvertSettings, IfExists


@click.command(
    "convert",
    cls=StepCommand,
    example="isosr-pipeline convert slices/ brain.zarr --voxel-size 5,2,2",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@setting(ConvertSettings, "voxel_size", "Z,Y,X", "Voxel size in µm, in place of the source's.")
@setting(ConvertSettings, "time", "N", "Time point of a series, from 0.")
@setting(
    ConvertSettings,
    "channel_pattern",
    "GLOB",
    "Sub-folders that are the channels, such as 'Ex_*'; each holds slices.",
)
@setting(ConvertSettings, "channel", "N,...", "Channels to keep, from 0, such as 0 or 2,0.")
@setting(ConvertSettings, "chunk", "Z,Y,X", "What is compressed together, in voxels.")
@setting(ConvertSettings, "shard", "Z,Y,X", "What is one file, in voxels; default: from the shape.")
@setting(ConvertSettings, "median", "R", "Median filter in each acquired plane, of this radius.")
@setting(
    ConvertSettings,
    "deskew",
    "ANGLE",
    "Undo the shear of a scan along z with a light sheet tilted by this angle in degrees, such as "
    "45 or -45.",
)
@switch(ConvertSettings, "rotate", "Turn the deskewed volume into the sample's own axes.")
@switch(ConvertSettings, "isotropic", "Store isotropic voxels: z is resampled linearly.")
@setting(
    ConvertSettings,
    "ngff",
    "VERSION",
    "OME-Zarr version: 0.5, or 0.4 (Zarr v2, every chunk a file) for older tools.",
)
@existing_options
@cluster_options
def command(
    source: Path,
    store: Path,
    if_exists: IfExists,
    cluster: str,
    workers: int | None,
    **given: Any,
) -> None:
    """Convert SOURCE to the OME-Zarr STORE.

    SOURCE is a TIFF, HDF5 or Imaris file, a folder of TIFF slices, or a Zarr, OME-Zarr or N5
    folder. Where a file or folder holds several arrays, write PATH::ARRAY.

    Voxels are kept as they are; a pyramid and the intensity windows are added. Only when asked
    for, they are filtered, deskewed and resampled on the way, in this order.
    """
    settings = settings_from(ConvertSettings, given)
    from isosr_pipeline.clusters import cluster_for
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.convert import convert

    reporter = reporter_for(sys.stderr)
    convert(
        source,
        store,
        settings,
        cluster_for("cpu", cluster, workers, tasks=1, say=reporter.say),
        if_exists=if_exists,
        reporter=reporter,
    )
