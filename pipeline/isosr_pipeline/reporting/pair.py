"""Both volumes of a report, open for reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isosr_pipeline.geometry import Box
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.restoring.parts import check_channel, complete_volume, restored_part
from isosr_pipeline.store.volume import Volume


@dataclass(frozen=True)
class Pair:
    """A volume before and after restoration.

    Parameters
    ----------
    measured, made : Volume
    before, after : Part
        The same part of both on the isotropic grid.
    channel : int
        Of both parts.
    """

    measured: Volume
    made: Volume
    before: Part
    after: Part
    channel: int

    @property
    def voxel_um(self) -> float:
        """Edge of the isotropic voxels."""
        return self.after.view.voxel_size[2]


def open_pair(store: Path, restored: Path, channel: int) -> Pair:
    """Open both volumes.

    Parameters
    ----------
    store, restored : Path
    channel : int
        Of the restored volume.

    Raises
    ------
    InputError
        When one is not complete, they don't fit each other, or there is no such channel.
    """
    measured, made = complete_volume(store), complete_volume(restored)
    check_channel(channel, made)
    before = restored_part(measured, made)
    check_channel(before.channels[channel], measured)
    view = IsotropicView(made)
    after = Part(view, Box.whole(view.shape), range(made.shape[0]))
    return Pair(measured, made, before, after, channel)
