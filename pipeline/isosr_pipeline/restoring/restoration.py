"""What a restoration is to do: decided, and refused where it can't be, before a worker is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from isosr_models.architectures import RichardsonLucyArchitecture
from isosr_models.layers import Statistics
from isosr_models.model_folder import Description, read_description
from isosr_models.precision import Precision
from isosr_models.restorers import NetworkRestorer, Restorer
from isosr_models.richardson_lucy import RichardsonLucyRestorer
from isosr_pipeline.engine.output import versions
from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import Image, IsotropicView, Placed
from isosr_pipeline.restoring.fitting import choose_block
from isosr_pipeline.restoring.models import IDENTITY, load
from isosr_pipeline.restoring.schemes import CORE, TRIMMED, ExactScheme, PaperScheme, Scheme
from isosr_pipeline.settings import DEFAULT_PERCENTILES, RestoreSettings
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.spec import VolumeSpec, cubic_shard
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.crops import are_alike


class PlacedImage(Image, Placed, Protocol):
    """What a restoration can be planned for: a volume, or a source that will become one."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the voxels."""
        ...


@dataclass(frozen=True)
class Outline:
    """What is restored, and how it is cut; known before a voxel is stored.

    Parameters
    ----------
    view : IsotropicView
        Of the volume.
    restorer : Restorer
        On the CPU, to be asked for its properties.
    settings : RestoreSettings
    box : Box
        What is restored, in voxels of the isotropic grid.
    channels : list of int
        Those of the volume that are restored.
    spec : VolumeSpec
        Of the output.
    """

    view: IsotropicView
    restorer: Restorer
    settings: RestoreSettings
    box: Box
    channels: list[int]
    spec: VolumeSpec

    @property
    def halo(self) -> int:
        """Context on each side of a block, in voxels."""
        return self.restorer.halo if self.settings.halo is None else self.settings.halo

    @property
    def regions(self) -> RegionPlan:
        """How the output is cut to be filled."""
        return RegionPlan(self.spec.shard, self.spec.shard, levels=1)

    @property
    def region_bytes(self) -> int:
        """Of a region, in the dtype of the output."""
        return math.prod(self.spec.shard) * self.spec.dtype.itemsize

    def scheme(self, memory: float) -> Scheme:
        """Choose blocks for workers with so many bytes for each.

        Raises
        ------
        InputError
            When not even the smallest block fits.
        """
        shard = Zyx(*(min(s, n) for s, n in zip(self.spec.shard, self.box.shape, strict=True)))
        if self.settings.scheme == "paper":
            return _paper_scheme(self.view.shape, self.restorer, memory)
        if self.settings.block == "auto":
            block = choose_block(shard, self.restorer, self.halo, memory)
        else:
            block = Zyx(*(min(b, s) for b, s in zip(self.settings.block, shard, strict=True)))
        return ExactScheme(block, self.halo, self.restorer.stride)


@dataclass(frozen=True)
class Restoration(Outline):
    """All that is decided before a worker is asked: what is restored, with what, and as what.

    Parameters
    ----------
    volume : Volume
    model : str
        A model folder, or ``"identity"``.
    description : Description or None
        Of the model; None for the identity.
    windows : list of tuple of 2 floats
        Of all channels of the volume; empty for the identity.
    """

    volume: Volume
    model: str
    description: Description | None
    windows: list[tuple[float, float]]

    @property
    def floors(self) -> list[float] | None:
        """Of each channel: where nothing exceeds it, the volume is passed through."""
        if not self.settings.skip_empty:
            return None
        given = self.settings.floor
        return [low if given is None else given for low, _high in self.windows]

    def history(self, precision: Precision | None) -> list[Provenance]:
        """Describe all that decides the result; the size of blocks and the device do not.

        Parameters
        ----------
        precision : {"32", "bf16"} or None
            None where the workers have still to be asked.
        """
        volume, settings, model = self.volume, self.settings, self.description
        step = Provenance(
            step="restore",
            source=str(volume.path.resolve()),
            parameters={
                "source_id": volume.identity,
                "method": model.method if model else IDENTITY,
                "model_sha256": model.weights_sha256 if model else None,
                "scheme": settings.scheme,
                "precision": precision,
                "halo": self.halo,
                "roi": [list(self.box.start), list(self.box.stop)],
                "channels": self.channels,
                "floors": self.floors,
                "chunk": list(self.spec.chunk),
                "shard": list(self.spec.shard),
                "windows": [list(window) for window in self.windows],
            },
            versions=versions(),
        )
        return [*(volume.attributes.history if volume.attributes else []), step]


def check_restoring(settings: RestoreSettings, halo: int, is_published: bool) -> None:
    """Refuse parameters that don't go together, before anything is opened.

    Parameters
    ----------
    settings : RestoreSettings
    halo : int
        What the restorer needs, in voxels.
    is_published : bool
        Whether its network is the publication's.

    Raises
    ------
    InputError
        Naming them.
    """
    if settings.halo is not None and settings.halo < halo:
        raise InputError(
            f"halo is {settings.halo} voxels, and the receptive field of the model reaches {halo}; "
            f"give {halo} or more, or leave it out"
        )
    if settings.floor is not None and not settings.skip_empty:
        raise InputError(
            f"floor is {settings.floor:g}, and nothing is skipped below it; ask for skip_empty too"
        )
    if settings.scheme == "exact":
        return
    if not is_published:
        raise InputError(
            "the publication's scheme is that of its 3D U-Net, and the model is none; leave scheme "
            "out"
        )
    own = {"halo": None, "block": "auto", "skip_empty": False}
    if given := [name for name, value in own.items() if getattr(settings, name) != value]:
        raise InputError(
            f"the publication's scheme has blocks of its own, and {' and '.join(given)} can't be "
            "chosen; leave them out, or take the scheme exact"
        )


def prepare(store: Path, model: str, settings: RestoreSettings) -> Restoration:
    """Decide what is restored, and refuse what can't be.

    Parameters
    ----------
    store : Path
        A complete OME-Zarr store.
    model : str
        Path of a model folder, or ``"identity"``.
    settings : RestoreSettings

    Raises
    ------
    InputError, ModelFormatError
        When the volume, the model or a parameter doesn't fit the others.
    """
    # Workers may stand in another folder.
    store = store.absolute()
    model = model if model == IDENTITY else str(Path(model).absolute())
    volume = Volume(store)
    volume.require_complete()
    description = None if model == IDENTITY else read_description(Path(model))
    restorer = load(model, "cpu", statistics_of(settings), "32")
    if model == IDENTITY and settings.skip_empty:
        raise InputError(
            "identity only resamples, and has no empty cells to skip; leave out skip_empty, or "
            "give a model"
        )
    outline = outlined(volume, restorer, settings)
    if description is not None:
        _check_grid(outline.view, description)
    return Restoration(
        **vars(outline),
        volume=volume,
        model=model,
        description=description,
        windows=_windows(volume, settings, description) if restorer.normalised else [],
    )


def outlined(image: PlacedImage, restorer: Restorer, settings: RestoreSettings) -> Outline:
    """Decide which part of an image is restored, and how it is cut.

    Parameters
    ----------
    image : PlacedImage
        A volume, or the processed source of one that is not converted yet.
    restorer : Restorer
    settings : RestoreSettings

    Raises
    ------
    InputError
        When the image or a parameter doesn't fit the others.
    """
    view = IsotropicView(image)
    check_restoring(settings, restorer.halo, isinstance(restorer, NetworkRestorer))
    if isinstance(restorer, RichardsonLucyRestorer) and settings.precision == "bf16":
        raise InputError(
            "precision is bf16, and Richardson-Lucy deconvolution computes in float32; leave it out"
        )
    box = settings.roi.box(view, image.origin) if settings.roi else Box.whole(view.shape)
    channels = _channels(image, settings)
    spec = _spec(image, view, settings, box, channels)
    return Outline(view, restorer, settings, box, channels, spec)


def _check_grid(view: IsotropicView, model: Description) -> None:
    """Refuse a PSF that was brought onto a grid with other voxels."""
    if not isinstance(model.network, RichardsonLucyArchitecture) or model.voxel_size is None:
        return
    own = view.voxel_size[2]
    if not are_alike(model.voxel_size, own):
        raise InputError(
            f"{view.volume.path} has isotropic voxels of {own:g} µm, and the PSF of the model is "
            f"on voxels of {model.voxel_size:g} µm; make a model for this volume: train --method "
            "richardson-lucy"
        )


def statistics_of(settings: RestoreSettings) -> Statistics:
    """Return what normalises features in a scheme."""
    return "block" if settings.scheme == "paper" else "frozen"


def _paper_scheme(shape: Zyx, restorer: Restorer, memory: float) -> PaperScheme:
    core = (CORE, CORE, CORE)
    edge = CORE + 2 * TRIMMED
    needed = restorer.memory(core, (edge, edge, edge))
    if needed > memory:
        raise InputError(
            f"a task may use {memory / 1e9:.1f} GB for a block, and the publication's of {edge}³ "
            f"voxels takes {needed / 1e9:.1f} GB; give fewer --workers, or --scheme exact"
        )
    return PaperScheme(shape)


def _channels(image: PlacedImage, settings: RestoreSettings) -> list[int]:
    count = image.shape[0]
    chosen = list(range(count)) if settings.channel is None else list(settings.channel)
    for channel in chosen:
        if channel >= count:
            raise InputError(
                f"{image.path} has {count} channels, and channel {channel} was asked for; they "
                "count from 0"
            )
    if len(set(chosen)) < len(chosen):
        raise InputError(f"channel names one twice ({chosen}); give each once")
    return chosen


def _spec(
    image: PlacedImage,
    view: IsotropicView,
    settings: RestoreSettings,
    box: Box,
    channels: Sequence[int],
) -> VolumeSpec:
    shape = (len(channels), *box.shape)
    chunk = Zyx(*settings.chunk)
    z, y, x = (
        first + start * size
        for first, start, size in zip(image.origin, box.start, view.voxel_size, strict=True)
    )
    return VolumeSpec(
        shape=shape,
        dtype=image.dtype,
        voxel_size=view.voxel_size,
        chunk=chunk,
        shard=Zyx(*settings.shard) if settings.shard else cubic_shard(shape, chunk),
        channels=tuple(image.channels[channel] for channel in channels),
        origin=(z, y, x),
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
