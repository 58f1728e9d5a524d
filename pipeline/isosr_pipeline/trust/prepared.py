"""What a trust map is to be: decided, and refused where it can't be, before a worker is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isosr_models.model_folder import Description, read_description
from isosr_pipeline.engine.output import versions
from isosr_pipeline.errors import InputError
from isosr_pipeline.isotropic import Part
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.restoring.parts import check_channel, complete_volume, restored_part
from isosr_pipeline.settings import TrustSettings
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.blurs import known_blur
from isosr_pipeline.trust.outline import MapOutline, outline_map
from isosr_pipeline.trust.planes import Planes
from isosr_pipeline.trust.reblurring import Reblurring


@dataclass(frozen=True)
class TrustPlan:
    """All that is decided before a worker is asked.

    Parameters
    ----------
    measured, restored : Volume
    reblurring : Reblurring
    settings : TrustSettings
    outline : MapOutline
    history : list of Provenance
    """

    measured: Volume
    restored: Volume
    reblurring: Reblurring
    settings: TrustSettings
    outline: MapOutline
    history: list[Provenance]

    @property
    def blur(self) -> str:
        """The blur in words."""
        return self.reblurring.blur.described(self.restored.voxel_size[2])


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
    for channel in part.channels:
        check_channel(channel, measured)
    planes = Planes.of_part(part.view.planes_per_voxel, part.box, measured.shape[1])
    outline = outline_map(made, planes, settings)
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
    own = _provenance(reblurring, settings, outline, description)
    history = [*(made.attributes.history if made.attributes else []), own]
    return TrustPlan(measured, made, reblurring, settings, outline, history)


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


def _provenance(
    reblurring: Reblurring,
    settings: TrustSettings,
    outline: MapOutline,
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
            "channels": outline.channels,
            "cell": list(outline.cell),
            "tolerance": settings.tolerance,
            "threshold": settings.threshold,
            "worst": settings.worst,
            "windows": [list(window) for window in reblurring.windows],
            "chunk": list(outline.spec.chunk),
            "shard": list(outline.spec.shard),
        },
        versions=versions(),
    )
