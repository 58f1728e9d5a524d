"""The reference that volumes are compared with."""

from __future__ import annotations

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.turned import TurnedImage
from isosr_pipeline.measuring import Image, ReopenedVolume
from isosr_pipeline.restoring.parts import check_channel
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.store.creation import is_store
from isosr_pipeline.store.volume import Volume


def open_reference(settings: EvaluateSettings, restored: Volume) -> Image | None:
    """Open the reference, turned as the settings say, as it travels to workers.

    Parameters
    ----------
    settings : EvaluateSettings
    restored : Volume
        On whose grid it must be.

    Returns
    -------
    Image or None
        None: there is none.

    Raises
    ------
    InputError
        When it is on another grid, or has no such channel.
    """
    if settings.reference is None:
        return None
    path = settings.reference.absolute()
    reference: Image
    if is_store(path):
        volume = Volume(path)
        volume.require_complete()
        reference = ReopenedVolume.of(volume)
    else:
        reference = open_source(path)
    turned = ""
    if settings.reference_axes is not None:
        reference = TurnedImage(reference, settings.reference_axes)
        turned = f" with its axes {settings.reference_axes} along z, y, x"
    if reference.shape[1:] != restored.shape[1:]:
        raise InputError(
            f"{path} has {reference.shape[1:]} voxels{turned}, and {restored.path} has "
            f"{restored.shape[1:]}; give a reference on the grid of the restored volume"
        )
    check_channel(settings.channel, reference)
    return reference
