"""Convert: any supported source to OME-Zarr with a pyramid and intensity windows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from isosr_cluster.clients import OpenClient, memory_per_task
from isosr_pipeline.engine.output import (
    begin_output,
    check_output,
    refuse_overlap,
    versions,
)
from isosr_pipeline.engine.regions import RegionPlan, RegionWriter, plan_regions
from isosr_pipeline.errors import InputError
from isosr_pipeline.fingerprint import fingerprint
from isosr_pipeline.geometry import Region, Zyx, blocks
from isosr_pipeline.processing import PlacedSource, processed
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import ConvertSettings, IfExists
from isosr_pipeline.sources import SelectedSource, Selection, open_source
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.pyramid import Level
from isosr_pipeline.store.spec import VolumeSpec, slab_shard
from isosr_pipeline.store.volume import Volume

_LABEL = "convert"
_PROCESSING = {"channel", "deskew", "rotate", "median", "isotropic"}
_VERIFIED = 8
"""Of so many chunks of a file one is decoded and compared: all would cost 45 % more, this 8 %."""

_MANY_FILES = 100_000
_FEWER_FILES = {
    "0.4": "every chunk is one in OME-Zarr 0.4; a larger --chunk makes fewer, --ngff 0.5 far fewer",
    "0.5": "a larger --shard makes fewer",
}


@dataclass
class ConvertRegion:
    """Copies one region from a source to levels 0 and 1 of a store; runs on a worker.

    Intensities of voxels that were not acquired are not counted.

    Parameters
    ----------
    source : PlacedSource
    store : Path
    piece : Zyx
        What is read at once, in voxels.
    level : Level or None
        Level 1, if there is one.
    """

    source: PlacedSource
    store: Path
    piece: Zyx
    level: Level | None

    @cached_property
    def _volume(self) -> Volume:
        return Volume(self.store, writable=True)

    def __call__(self, region: Region) -> dict[str, Any]:
        """Copy the region."""
        writer = RegionWriter(self._volume, region, self.level, verified=_VERIFIED)
        for box in blocks(region.box, self.piece):
            data = self.source.read(region.channel, box)
            _require_finite(data, region)
            writer.add(box, data, self.source.acquired(box))
        return writer.finish()


@dataclass(frozen=True)
class Conversion:
    """All that is decided before a worker is asked.

    Parameters
    ----------
    measured : SelectedSource
        As it was opened.
    image : PlacedSource
        After all processing.
    spec : VolumeSpec
        Of the store.
    plan : RegionPlan
        How the store is cut to be filled.
    history : list of Provenance
    """

    measured: SelectedSource
    image: PlacedSource
    spec: VolumeSpec
    plan: RegionPlan
    history: list[Provenance]

    def require_memory(self, client: Client) -> None:
        """Refuse regions that don't fit into a worker, which would be killed again and again.

        Raises
        ------
        InputError
            Naming what is needed, and what there is.
        """
        needed, available = self.plan.memory(self.spec), memory_per_task(client)
        if needed > available:
            shard = " × ".join(map(str, self.spec.shard))
            raise InputError(
                f"a worker has {available / 1e9:.1f} GB, and needs about {needed / 1e9:.1f} GB "
                f"with shards of {shard} {self.spec.dtype.name} voxels; give fewer --workers or a "
                "smaller --shard"
            )


def convert(
    source: Path,
    store: Path,
    settings: ConvertSettings,
    open_client: OpenClient,
    *,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> None:
    """Convert a source to an OME-Zarr store.

    The store is created with all its metadata first; the cluster's workers then fill its regions,
    and process them on the way. Each voxel is read once, for level 0 and level 1; no process holds
    more than a piece of a region, and its part of level 1.

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
    found = prepare(source, settings)
    spec, plan, history = found.spec, found.plan, found.history
    refuse_overlap(store, [found.measured.path])
    if check_output(store, history, if_exists) == "finished":
        reporter.say(f"{store} is complete already")
        return
    if spec.files > _MANY_FILES:
        reporter.say(f"{store} will be about {spec.files} files: {_FEWER_FILES[spec.ngff]}")
    further = spec.levels[1 : plan.levels]
    job = ConvertRegion(found.image, store.absolute(), plan.piece, further[0] if further else None)
    # The lock is given back last, when workers of this machine have ended.
    with ExitStack() as lock, open_client() as client:
        found.require_memory(client)
        output = lock.enter_context(begin_output(store, spec, plan, history, if_exists))
        output.fill(client, job, reporter, _LABEL)
        output.finish(output.windows(_LABEL), figures={})


def prepare(source: Path, settings: ConvertSettings) -> Conversion:
    """Decide what a source is converted to, and refuse what can't be.

    Parameters
    ----------
    source : Path
        File or folder, or ``path::array``; see `open_source`.
    settings : ConvertSettings

    Raises
    ------
    InputError
        When the source is not usable, its voxel size is unknown, or not what the processing needs.
    """
    selection = Selection(time=settings.time, channel_pattern=settings.channel_pattern)
    measured = open_source(Path(source).absolute(), selection)
    image = processed(measured, settings)
    spec = plan_volume(image, settings)
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
                "ngff": spec.ngff,
                **settings.model_dump(
                    mode="json", include={"channel", "deskew", "rotate", "median", "isotropic"}
                ),
            },
            versions=versions(),
        )
    ]
    return Conversion(measured, image, spec, plan_regions(spec, image.grain), history)


def plan_volume(source: PlacedSource, settings: ConvertSettings) -> VolumeSpec:
    """Plan the store that a source is converted to.

    Parameters
    ----------
    source : PlacedSource
        After all processing.
    settings : ConvertSettings
        Its shard is used if there is one; else `slab_shard` chooses.

    Raises
    ------
    InputError
        When chunks or shards don't fit each other, or are too large.
    """
    chunk = Zyx(*settings.chunk)
    shape, voxel_size = source.shape, source.voxel_size
    shard = settings.shard or slab_shard(shape, voxel_size, chunk, source.dtype.itemsize)
    return VolumeSpec(
        shape=shape,
        dtype=source.dtype,
        voxel_size=voxel_size,
        chunk=chunk,
        shard=Zyx(*shard),
        channels=source.channels,
        origin=source.origin,
        ngff=settings.ngff,
    )


def _require_finite(data: NDArray[Any], region: Region) -> None:
    """Refuse NaN and infinities: they would spread over a receptive field, and over a training."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        count = int(np.count_nonzero(~np.isfinite(data)))
        raise InputError(
            f"{region} holds {count} voxels that are NaN or infinite; replace them in the source, "
            "by 0 for instance"
        )
