"""Convert: any supported source to OME-Zarr with a pyramid and intensity windows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isosr_cluster.clients import OpenClient
from isosr_pipeline.engine.filling import fill
from isosr_pipeline.engine.output import (
    begin_output,
    check_output,
    refuse_overlap,
    versions,
)
from isosr_pipeline.errors import InputError
from isosr_pipeline.fingerprint import fingerprint
from isosr_pipeline.geometry import Region, Zyx
from isosr_pipeline.processing import PlacedSource, processed
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import ConvertSettings, IfExists
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.volume import Volume, VolumeSpec, default_shard

_LEVEL_0 = "convert"


@dataclass
class ConvertRegion:
    """Copies one region from a source to a store, and counts intensities; runs on a worker.

    Intensities of voxels that were not acquired are not counted.

    Parameters
    ----------
    source : PlacedSource
    store : Path
    """

    source: PlacedSource
    store: Path

    @cached_property
    def _volume(self) -> Volume:
        return Volume(self.store, writable=True)

    def __call__(self, region: Region) -> dict[str, Any]:
        """Copy the region."""
        data = self.source.read(region.channel, region.box)
        _require_finite(data, region)
        self._volume.write(region.channel, region.box, data)
        histogram = Histogram(data.dtype)
        acquired = self.source.acquired(region.box)
        histogram.add(data if acquired.all() else data[acquired])
        return {"bytes": data.nbytes, "channel": region.channel, "histogram": histogram.encode()}


def convert(
    source: Path,
    store: Path,
    settings: ConvertSettings,
    open_client: OpenClient,
    *,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> None:
    """Convert a source to an OME-Zarr 0.5 store.

    The store is created with all its metadata first; the cluster's workers then fill its regions,
    and process them on the way. No process holds more than one region and what it is made from.

    Parameters
    ----------
    source : Path
        File or folder, or ``path::array``; see `open_source`.
    store : Path
    settings : ConvertSettings
    open_client : callable
        Connects to the cluster, once all else is found to be in order; its workers see both paths.
    if_exists : {"refuse", "resume", "overwrite"}
    reporter : Reporter, optional

    Raises
    ------
    InputError
        When the source is not usable, its voxel size is unknown, or not what the processing needs.
    OutputExistsError, ResumeError
        When `store` exists and may not be overwritten or resumed.
    WorkFailedError
        When some regions could not be converted.
    """
    reporter = reporter or SilentReporter()
    selection = Selection(time=settings.time, channel_pattern=settings.channel_pattern)
    measured = open_source(Path(source).absolute(), selection)
    image = processed(measured, settings)
    spec = _plan(image, settings)
    history = [
        Provenance(
            step="convert",
            source=str(measured.path.resolve()),
            parameters={
                **asdict(measured.selection),
                "source_fingerprint": fingerprint(measured.path),
                "shape": list(spec.shape),
                "dtype": spec.dtype.name,
                "voxel_size": list(spec.voxel_size),
                "chunk": list(spec.chunk),
                "shard": list(spec.shard),
                "origin": list(spec.origin),
                **settings.model_dump(include={"deskew", "rotate", "median", "isotropic"}),
            },
            versions=versions(),
        )
    ]
    refuse_overlap(store, [measured.path])
    if check_output(store, history, if_exists) == "finished":
        reporter.say(f"{store} is complete already")
        return
    with open_client() as client, begin_output(store, spec, history, if_exists) as output:
        job = ConvertRegion(image, store.absolute())
        fill(client, output.volume.regions(), job, output.ledger, reporter, _LEVEL_0)
        output.fill_pyramid(client, reporter)
        output.finish(output.windows(_LEVEL_0), figures={})


def _plan(source: PlacedSource, settings: ConvertSettings) -> VolumeSpec:
    chunk = Zyx(*settings.chunk)
    return VolumeSpec(
        shape=source.shape,
        dtype=source.dtype,
        voxel_size=source.voxel_size,
        chunk=chunk,
        shard=Zyx(*settings.shard) if settings.shard else default_shard(source.shape, chunk),
        channels=source.channels,
        origin=source.origin,
    )


def _require_finite(data: NDArray[Any], region: Region) -> None:
    """Refuse NaN and infinities: they would spread over a receptive field, and over a training."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        count = int(np.count_nonzero(~np.isfinite(data)))
        raise InputError(
            f"{region} holds {count} voxels that are NaN or infinite; replace them in the source, "
            "by 0 for instance"
        )
