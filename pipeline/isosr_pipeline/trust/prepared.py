"""What a trust map is to be: decided, and refused where it can't be, before a worker is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isosr_models.model_folder import Description, read_description
from isosr_pipeline.engine.output import versions
from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.errors import InputError, NoMeasuredPlaneError
from isosr_pipeline.geometry import AXES, Zyx
from isosr_pipeline.isotropic import Part
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.restoring.parts import check_channel, complete_volume, restored_part
from isosr_pipeline.settings import TrustSettings
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.blurs import known_blur
from isosr_pipeline.trust.planes import Planes, cells_of
from isosr_pipeline.trust.reblurring import Reblurring

_CELL = 8
_CHUNK = 32
_EDGES = (256, 512)
_FEW_REGIONS = 4096


@dataclass(frozen=True)
class TrustPlan:
    """All that is decided before a worker is asked.

    Parameters
    ----------
    measured, restored : Volume
    reblurring : Reblurring
    settings : TrustSettings
    channels : list of int
        Those of the restored volume that are looked at.
    cell : Zyx
        In voxels of the restored volume.
    spec : VolumeSpec
        Of the map.
    history : list of Provenance
    """

    measured: Volume
    restored: Volume
    reblurring: Reblurring
    settings: TrustSettings
    channels: list[int]
    cell: Zyx
    spec: VolumeSpec
    history: list[Provenance]

    @property
    def regions(self) -> RegionPlan:
        """How the map is cut to be filled."""
        return RegionPlan(self.spec.shard, self.spec.shard, levels=1)

    @property
    def blur(self) -> str:
        """The blur in words."""
        known = self.reblurring.blur
        if known.model is not None:
            return known.model
        um = known.fwhm * self.restored.voxel_size[2]
        return f"Gaussian along z, FWHM {um:.3g} µm"


def plan_trust(store: Path, restored: Path, model: str, settings: TrustSettings) -> TrustPlan:
    """Check that everything fits, and decide what is to be done.

    Parameters
    ----------
    store, restored : Path
        The measured volume, and what `restore` made of it.
    model : str
        What it was restored with: a model folder, or ``"identity"``.
    settings : TrustSettings

    Raises
    ------
    UnknownBlurError
        When the model knows no blur, and none is given.
    NoMeasuredPlaneError
        When the restored volume lies between two measured planes.
    InputError, ModelFormatError
        When the volumes, the model or a parameter doesn't fit the others.
    """
    measured, made = complete_volume(store), complete_volume(restored)
    step = _restoring(made)
    _check_made_of(measured, made, step)
    part = restored_part(measured, made)
    blur = known_blur(model, settings.axial_fwhm, made.voxel_size[2])
    description = read_description(Path(blur.model)) if blur.model else None
    _check_made_with(made, step, model)
    channels = _channels(made, settings)
    for channel in part.channels:
        check_channel(channel, measured)
    planes = Planes(
        step=1 / part.view.planes_per_voxel,
        offset=part.box.start.z,
        length=part.shape.z,
        count=measured.shape[1],
    )
    _check_planes(planes, measured, made)
    cell = _cell(settings, planes.step, made)
    reblurring = Reblurring(
        store=measured.path,
        restored=made.path,
        store_id=measured.identity,
        restored_id=made.identity,
        blur=blur,
        device=settings.device,
        windows=_windows(measured, step, part, description),
        channels=list(part.channels),
        origin=part.box.start,
        planes=planes,
    )
    spec = _spec(made, part, channels, cell)
    own = _provenance(reblurring, settings, channels, cell, spec, description)
    history = [*(made.attributes.history if made.attributes else []), own]
    return TrustPlan(measured, made, reblurring, settings, channels, cell, spec, history)


def _restoring(made: Volume) -> dict[str, Any]:
    """Return the parameters that a volume was restored with; empty if it does not say."""
    history = made.attributes.history if made.attributes else []
    return history[-1].parameters if history and history[-1].step == "restore" else {}


def _check_made_of(measured: Volume, made: Volume, step: dict[str, Any]) -> None:
    source = step.get("source_id", measured.identity)
    if source != measured.identity:
        raise InputError(
            f"{made.path} was made of another volume than {measured.path} (id {source}, and not "
            f"{measured.identity}); give the store that it was restored from"
        )


def _check_made_with(made: Volume, step: dict[str, Any], model: str) -> None:
    if model == IDENTITY or step.get("model_sha256") is None:
        return
    found = read_description(Path(model)).weights_sha256
    if found != step["model_sha256"]:
        raise InputError(
            f"{made.path} was made with another model than {model} (weights "
            f"{step['model_sha256'][:12]}…, and not {found[:12]}…); give the model that it was "
            "restored with"
        )


def _check_planes(planes: Planes, measured: Volume, made: Volume) -> None:
    if planes.within(0, planes.length):
        return
    first, last = planes.offset, planes.offset + planes.length - 1
    below = first // planes.step * planes.step
    raise NoMeasuredPlaneError(
        f"{made.path} shows z {first} to {last} of the isotropic grid, and the planes of "
        f"{measured.path} nearest to it lie at z {below:g} and {below + planes.step:g}, so that "
        "there is nothing to compare it with; restore a part that is longer along z"
    )


def _channels(made: Volume, settings: TrustSettings) -> list[int]:
    chosen = list(settings.channel or range(made.shape[0]))
    for channel in chosen:
        check_channel(channel, made)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"channel names one twice ({chosen}); give each once")
    return chosen


def _cell(settings: TrustSettings, step: float, made: Volume) -> Zyx:
    least = math.ceil(step - 1e-3)
    if settings.cell == "auto":
        return Zyx(max(_CELL, least), _CELL, _CELL)
    cell = Zyx(*settings.cell)
    if cell.z < least:
        raise InputError(
            f"cell is {cell.z} voxels long along {AXES[0]}, and measured planes lie {step:g} "
            f"voxels apart, so that some cells would hold none; give {least} or more"
        )
    for axis, length, n in zip(AXES, cell, made.shape[1:], strict=True):
        if length > max(n, _EDGES[1]):
            raise InputError(
                f"cell is {length} voxels long along {axis}, and {made.path} has {n}; give fewer"
            )
    return cell


def _windows(
    measured: Volume, step: dict[str, Any], part: Part, description: Description | None
) -> list[tuple[float, float]]:
    """Return the intensities that are 0 and 1 to the blur: those of the restoration."""
    recorded = step.get("windows") or []
    if description is None:
        return [(0.0, 1.0) for _ in part.channels]
    if recorded:
        pairs = (recorded[channel] for channel in part.channels)
        return [(float(low), float(high)) for low, high in pairs]
    if description.window is not None:
        return [description.window for _ in part.channels]
    found = (measured.window(c, description.window_percentiles) for c in part.channels)
    return [(window.low, window.high) for window in found]


def _spec(made: Volume, part: Part, channels: list[int], cell: Zyx) -> VolumeSpec:
    depth, height, width = cells_of(part.shape, cell)
    shape = (len(channels), depth, height, width)
    z, y, x = (
        first + (length - 1) / 2 * size
        for first, length, size in zip(made.origin, cell, made.voxel_size, strict=True)
    )
    size_z, size_y, size_x = (n * s for n, s in zip(cell, made.voxel_size, strict=True))
    return VolumeSpec(
        shape=shape,
        dtype=np.dtype(np.float32),
        voxel_size=(size_z, size_y, size_x),
        chunk=Zyx(_CHUNK, _CHUNK, _CHUNK),
        shard=_shard(shape, cell),
        channels=tuple(made.channels[channel] for channel in channels),
        origin=(z, y, x),
    )


def _shard(shape: tuple[int, int, int, int], cell: Zyx) -> Zyx:
    """Choose regions of about 256 voxels of the restored volume, or 512 where they are many.

    As its shards are, so that what is decoded at once is read at once.
    """
    for edge in _EDGES:
        shard = Zyx(*(max(1, round(edge / length / _CHUNK)) * _CHUNK for length in cell))
        counts = (math.ceil(n / s) for n, s in zip(shape[1:], shard, strict=True))
        if shape[0] * math.prod(counts) <= _FEW_REGIONS:
            break
    return shard


def _provenance(
    reblurring: Reblurring,
    settings: TrustSettings,
    channels: list[int],
    cell: Zyx,
    spec: VolumeSpec,
    description: Description | None,
) -> Provenance:
    return Provenance(
        step="trust",
        source=str(reblurring.restored.resolve()),
        parameters={
            "source_id": reblurring.restored_id,
            "measured_id": reblurring.store_id,
            "method": description.method if description else None,
            "model_sha256": description.weights_sha256 if description else None,
            "gaussian_fwhm": reblurring.blur.fwhm,
            "channels": channels,
            "cell": list(cell),
            "tolerance": settings.tolerance,
            "threshold": settings.threshold,
            "worst": settings.worst,
            "windows": [list(window) for window in reblurring.windows],
            "chunk": list(spec.chunk),
            "shard": list(spec.shard),
        },
        versions=versions(),
    )
