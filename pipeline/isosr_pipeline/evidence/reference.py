"""The reference that volumes are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.turned import TurnedImage
from isosr_pipeline.geometry import AXES, Box
from isosr_pipeline.measuring import Image, ReopenedVolume
from isosr_pipeline.restoring.parts import check_channel
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.store.creation import is_store
from isosr_pipeline.store.volume import Volume

_TOLERANCE = 1e-2
"""By which share voxels may differ in size: what rounding in metadata comes to."""


@dataclass(frozen=True)
class Reference:
    """One channel of an image, as it travels to workers.

    Parameters
    ----------
    image : Image
    channel : int
    """

    image: Image
    channel: int

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that lies in it; returns (z, y, x)."""
        return self.image.read(self.channel, box)


def open_reference(
    settings: EvaluateSettings, restored: Volume, source_channel: int
) -> Reference | None:
    """Open the reference, turned as the settings say, as it travels to workers.

    Parameters
    ----------
    settings : EvaluateSettings
    restored : Volume
        On whose grid it must be.
    source_channel : int
        The channel of the measured volume that was restored.

    Returns
    -------
    Reference or None
        None: there is none.

    Raises
    ------
    InputError
        When it is on another grid, is a store of other voxels, or has no such channel.
    """
    if settings.reference is None:
        return None
    path = settings.reference.absolute()
    reference: Image
    if is_store(path):
        volume = Volume(path)
        volume.require_complete()
        _check_voxels(volume, settings.reference_axes, restored)
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
    channel = settings.reference_channel
    if channel is None:
        channel = 0 if reference.shape[0] == 1 else source_channel
        if channel >= reference.shape[0]:
            raise InputError(
                f"{path} has {reference.shape[0]} channels, and none is channel {channel}, of "
                "which the restored one was made; give --reference-channel"
            )
    check_channel(channel, reference)
    return Reference(reference, channel)


def _check_voxels(reference: Volume, order: str | None, restored: Volume) -> None:
    """Refuse a store whose voxels are of another size; those of other sources may be unknown."""
    axes = [AXES.index(part.removeprefix("-")) for part in (order or ",".join(AXES)).split(",")]
    sizes = tuple(reference.voxel_size[axis] for axis in axes)
    pairs = zip(sizes, restored.voxel_size, strict=True)
    if not all(math.isclose(own, other, rel_tol=_TOLERANCE) for own, other in pairs):
        shown = [" × ".join(f"{um:g}" for um in all_um) for all_um in (sizes, restored.voxel_size)]
        raise InputError(
            f"{reference.path} has voxels of {shown[0]} µm along z, y, x of the restored volume, "
            f"and {restored.path} has {shown[1]} µm; give a reference on the grid of the restored "
            "volume"
        )
