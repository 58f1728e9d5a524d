"""What can be done to an image on its way into a store: each step is a source around a source.

Nothing is computed before it is read, and a box comes out the same whatever other boxes are read,
so that regions can be converted on their own.
"""

from __future__ import annotations

from isosr_pipeline.processing.base import PlacedSource
from isosr_pipeline.processing.calibrated import CalibratedSource
from isosr_pipeline.processing.channels import PickedChannels
from isosr_pipeline.processing.deskew import DeskewedSource
from isosr_pipeline.processing.isotropic import IsotropicSource
from isosr_pipeline.processing.median import MedianSource
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources.base import Source

__all__ = [
    "CalibratedSource",
    "DeskewedSource",
    "IsotropicSource",
    "MedianSource",
    "PickedChannels",
    "PlacedSource",
    "processed",
]


def processed(source: Source, settings: ConvertSettings) -> PlacedSource:
    """Put the steps that are asked for around a source.

    They are, in this order: channels, median, deskew, isotropic.

    Parameters
    ----------
    source : Source
    settings : ConvertSettings
        Its voxel size replaces the source's before anything else.

    Raises
    ------
    InputError
        When a channel isn't there, or the voxel size is unknown, or not what a step needs.
    """
    image: PlacedSource = CalibratedSource(source, settings.voxel_size)
    if settings.channel is not None:
        image = PickedChannels(image, settings.channel)
    if settings.median is not None:
        image = MedianSource(image, settings.median)
    if settings.deskew is not None:
        image = DeskewedSource(image, settings.deskew, settings.rotate)
    if settings.isotropic:
        image = IsotropicSource(image)
    return image
