"""Restore: a trained model over a whole volume, region by region on a cluster."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isosr_cluster.clients import OpenClient
from isosr_models.model_folder import Description, identity, load_restorer, read_description
from isosr_models.restorers import Restorer
from isosr_pipeline.devices import choose_device, memory_of_task
from isosr_pipeline.engine.output import (
    Output,
    begin_output,
    check_output,
    refuse_overlap,
    versions,
)
from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.errors import InputError, WorkFailedError
from isosr_pipeline.geometry import Box, Region, Zyx, blocks, context
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import DEFAULT_PERCENTILES, Device, IfExists, RestoreSettings
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.spec import VolumeSpec, cubic_shard
from isosr_pipeline.store.volume import Volume

IDENTITY = "identity"
"""In place of a model folder: resample only."""

SMALLEST_AUTO_BLOCK = 120
_SHARE_OF_MEMORY = 0.6
_LABEL = "restore"


@dataclass
class RestoreRegion:
    """Restores one region block by block and writes it; runs on a worker.

    Parameters
    ----------
    store, out : Path
        The volume to restore, and the one to fill.
    model : str
        A model folder, or ``"identity"``.
    block : Zyx
    halo : int
    windows : list of tuple of 2 floats
        Intensities of each channel that are 0 and 1 to the network.
    device : {"auto", "cpu", "cuda"}
    """

    store: Path
    out: Path
    model: str
    block: Zyx
    halo: int
    windows: list[tuple[float, float]]
    device: Device

    @cached_property
    def _view(self) -> IsotropicView:
        return IsotropicView(Volume(self.store))

    @cached_property
    def _output(self) -> Volume:
        return Volume(self.out, writable=True)

    @cached_property
    def _restorer(self) -> Restorer:
        return load(self.model, self.device)

    def __call__(self, region: Region) -> dict[str, Any]:
        """Restore the region."""
        out = np.empty(region.box.shape, self._output.dtype)
        clipped = saturated = 0
        for block in blocks(region.box, self.block):
            restored, outside = self._restore(region.channel, block)
            if not np.isfinite(restored).all():
                raise WorkFailedError(
                    f"{region}: the model made NaN or infinities of block {block}; nothing of it "
                    "is written: look for extreme intensities there, or train again"
                )
            values, beyond = to_dtype(restored, out.dtype)
            out[block.relative_to(region.box.start).slices] = values
            clipped += beyond
            saturated += outside
        self._output.write(region.channel, region.box, out)
        histogram = Histogram(out.dtype)
        histogram.add(out)
        return {
            "bytes": out.nbytes,
            "channel": region.channel,
            "clipped": clipped,
            "saturated": saturated,
            "histogram": histogram.encode(),
        }

    def _restore(self, channel: int, block: Box) -> tuple[NDArray[np.float32], int]:
        """Return a restored block in the units of the volume, and how many voxels saturated."""
        restorer = self._restorer
        halo = self.halo if restorer.halo else 0
        around = context(block, halo, restorer.stride)
        measured = self._view.read(channel, around.read)
        low, high = self.windows[channel] if restorer.normalised else (0.0, 1.0)
        scale = np.float32(high - low)
        normalised = torch.from_numpy((measured - np.float32(low)) / scale)
        result = restorer(normalised[None, None])[0, 0].numpy()[around.keep.slices]
        outside = 0
        if restorer.saturates:
            kept = measured[around.keep.slices]
            outside = int(np.count_nonzero((kept < low) | (kept > high)))
        return result * scale + np.float32(low), outside


def load(model: str, device: Device) -> Restorer:
    """Load the restorer of a model folder, or the identity."""
    if model == IDENTITY:
        return identity()
    return load_restorer(Path(model), device=choose_device(device))


def to_dtype(values: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """Round to a dtype, and count the values that had to be clipped to its range.

    Parameters
    ----------
    values : ndarray, float32
    dtype : numpy.dtype
        Floats are taken as they are.
    """
    if dtype.kind == "f":
        return values.astype(dtype), 0
    limits = np.iinfo(dtype)
    rounded = np.rint(values)
    beyond = int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
    return np.clip(rounded, limits.min, limits.max).astype(dtype), beyond


def restore(
    store: Path,
    model: str,
    out: Path,
    settings: RestoreSettings,
    open_client: OpenClient,
    *,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> None:
    """Restore a volume to isotropic resolution.

    The output has the input's dtype and intensity units, and isotropic voxels. With a model's
    frozen normalisation the result does not depend on how it is cut into regions and blocks.

    Parameters
    ----------
    store : Path
        A complete OME-Zarr store.
    model : str
        Path of a model folder, or ``"identity"``.
    out : Path
    settings : RestoreSettings
    open_client : callable
        Connects to the cluster, once all else is found to be in order; its workers see all paths.
    if_exists : {"refuse", "resume", "overwrite"}
    reporter : Reporter, optional

    Raises
    ------
    InputError, ModelFormatError
        When the volume, the model or a parameter doesn't fit the others.
    OutputExistsError, ResumeError
        When `out` exists and may not be overwritten or resumed.
    WorkFailedError
        When some regions could not be restored.
    """
    reporter = reporter or SilentReporter()
    # Workers may stand in another folder.
    store, out = store.absolute(), out.absolute()
    model = model if model == IDENTITY else str(Path(model).absolute())
    volume = Volume(store)
    volume.require_complete()
    view = IsotropicView(volume)
    description = None if model == IDENTITY else read_description(Path(model))
    restorer = load(model, "cpu")
    if settings.halo < restorer.halo:
        raise InputError(
            f"halo is {settings.halo} voxels, and the receptive field of {model} reaches "
            f"{restorer.halo}; give --halo {restorer.halo} or more"
        )
    spec = _plan(volume, view, settings)
    windows = _windows(volume, settings, description) if restorer.normalised else []
    history = [*_earlier(volume), _provenance(volume, description, settings, spec, windows)]
    refuse_overlap(out, [store] if model == IDENTITY else [store, Path(model)])
    if check_output(out, history, if_exists) == "finished":
        reporter.say(f"{out} is complete already")
        return
    # The lock is given back last, when no worker writes any more.
    with ExitStack() as lock, open_client() as client:
        block = choose_block(
            settings, spec.shard, restorer, memory_of_task(client, settings.device)
        )
        job = RestoreRegion(store, out, model, block, settings.halo, windows, settings.device)
        plan = RegionPlan(spec.shard, spec.shard, levels=1)
        output = lock.enter_context(begin_output(out, spec, plan, history, if_exists))
        output.fill(client, job, reporter, _LABEL)
        figures = _figures(output)
        output.finish(output.windows(_LABEL), figures)
        for name, where in (
            ("clipped", f"the range of {spec.dtype}"),
            ("saturated", "the intensity window"),
        ):
            if figures[name]:
                reporter.say(
                    f"{figures[name]} of {math.prod(spec.shape)} voxels were {name}: they lay "
                    f"outside {where}"
                )


def choose_block(settings: RestoreSettings, shard: Zyx, restorer: Restorer, memory: int) -> Zyx:
    """Choose what the network sees at once, less its halo.

    Parameters
    ----------
    settings : RestoreSettings
    shard : Zyx
        A region, in voxels; no block is larger.
    restorer : Restorer
    memory : int
        Bytes that a task may use.

    Raises
    ------
    InputError
        When "auto" is asked for and not even the smallest block fits.
    """
    if settings.block != "auto":
        return Zyx(*(min(b, s) for b, s in zip(settings.block, shard, strict=True)))
    voxels = _SHARE_OF_MEMORY * memory / restorer.bytes_per_voxel
    edge = int(voxels ** (1 / 3)) - 2 * (settings.halo + restorer.stride)
    if edge < min(SMALLEST_AUTO_BLOCK, *shard):
        raise InputError(
            f"a task has {memory / 1e9:.1f} GB, in which a block of {max(edge, 0)} voxels "
            f"fits, and blocks should have {SMALLEST_AUTO_BLOCK}; give fewer --workers, or "
            "a smaller --block"
        )
    # Blocks of equal size in a region: a thin last one would be mostly halo.
    return Zyx(*(-(-s // -(-s // edge)) for s in shard))


def _plan(volume: Volume, view: IsotropicView, settings: RestoreSettings) -> VolumeSpec:
    shape = (volume.shape[0], *view.shape)
    chunk = Zyx(*settings.chunk)
    return VolumeSpec(
        shape=shape,
        dtype=volume.dtype,
        voxel_size=view.voxel_size,
        chunk=chunk,
        shard=Zyx(*settings.shard) if settings.shard else cubic_shard(shape, chunk),
        channels=tuple(volume.channels),
        origin=volume.origin,
    )


def _windows(
    volume: Volume, settings: RestoreSettings, description: Description | None
) -> list[tuple[float, float]]:
    channels = range(volume.shape[0])
    given = settings.window or (description.window if description else None)
    if given is not None:
        return [given for _ in channels]
    percentiles = description.window_percentiles if description else DEFAULT_PERCENTILES
    found = [volume.window(channel, percentiles) for channel in channels]
    return [(window.low, window.high) for window in found]


def _earlier(volume: Volume) -> list[Provenance]:
    return volume.attributes.history if volume.attributes else []


def _provenance(
    volume: Volume,
    description: Description | None,
    settings: RestoreSettings,
    spec: VolumeSpec,
    windows: list[tuple[float, float]],
) -> Provenance:
    """Describe all that decides the result; the size of blocks and the device do not."""
    return Provenance(
        step="restore",
        source=str(volume.path.resolve()),
        parameters={
            "source_id": volume.attributes.id if volume.attributes else None,
            "method": description.method if description else IDENTITY,
            "model_sha256": description.weights_sha256 if description else None,
            "scheme": "exact",
            "halo": settings.halo,
            "chunk": list(spec.chunk),
            "shard": list(spec.shard),
            "windows": [list(window) for window in windows],
        },
        versions=versions(),
    )


def _figures(output: Output) -> dict[str, int]:
    figures = {"clipped": 0, "saturated": 0}
    for result in output.ledger.results(_LABEL):
        for name in figures:
            figures[name] += result[name]
    return figures
