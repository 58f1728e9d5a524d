"""Which part of a measured volume a restored one shows, as its history tells."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.measuring import ReopenedVolume
from isosr_pipeline.store.volume import Volume


class Channelled(Protocol):
    """What has channels: a volume, or a source."""

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...


def complete_volume(path: Path) -> Volume:
    """Open a store that is complete.

    Raises
    ------
    InputError
        When it is none, or is not.
    """
    volume = Volume(path.absolute())
    volume.require_complete()
    return volume


def restored_part(measured: Volume, made: Volume) -> Part:
    """Return what of a measured volume was restored.

    Parameters
    ----------
    measured, made : Volume
        The measured volume, and what `restore` made of it.

    Returns
    -------
    Part
        It travels to workers, each of which opens the volume when it first reads.

    Raises
    ------
    InputError
        When the restored volume is not of the shape of that part.
    """
    view = IsotropicView(ReopenedVolume.of(measured))
    history = made.attributes.history if made.attributes else []
    box, channels = Box.whole(view.shape), list(range(made.shape[0]))
    if history and history[-1].step == "restore":
        parameters = history[-1].parameters
        start, stop = parameters.get("roi", (box.start, box.stop))
        box = Box(Zyx(*start), Zyx(*stop))
        channels = parameters.get("channels", channels)
    own = IsotropicView(made).shape
    if own != box.shape:
        raise InputError(
            f"{made.path} has {tuple(own)} voxels, and {measured.path} has {tuple(box.shape)} "
            "on the isotropic grid; give the volume that restore made of it"
        )
    return Part(view, box, channels)


def check_channel(channel: int, *volumes: Channelled) -> None:
    """Refuse a channel that one of some volumes doesn't have.

    Raises
    ------
    InputError
        Naming the volume.
    """
    for volume in volumes:
        if channel >= volume.shape[0]:
            raise InputError(
                f"{volume.path} has {volume.shape[0]} channels, and channel {channel} was asked "
                "for; they count from 0"
            )
