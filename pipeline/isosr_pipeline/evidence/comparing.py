"""Compares an image with a reference, block by block: the intensity fit, then the similarity."""

from __future__ import annotations

from dataclasses import dataclass

from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.reference import Reference
from isosr_pipeline.evidence.similarity import SSIM_RADIUS, ssim_map
from isosr_pipeline.geometry import Box
from isosr_pipeline.isotropic import Grid


@dataclass(frozen=True)
class MeasureMoments:
    """Takes the moments of a box and of its reference.

    Parameters
    ----------
    reference : Reference
    image : Grid
        Both picklable, and of one shape.
    channel : int
        Of the image.
    """

    reference: Reference
    image: Grid
    channel: int

    def __call__(self, box: Box) -> Moments:
        """Read both and take their moments."""
        moments = Moments()
        moments.update(self.reference.read(box), self.image.read(self.channel, box))
        return moments


@dataclass(frozen=True)
class MeasureSimilarity:
    """Sums up the structural similarity of a box to its reference.

    Parameters
    ----------
    reference : Reference
    image : Grid
        Both picklable, and of one shape.
    channel : int
        Of the image.
    gain, offset : float
        ``gain * image + offset`` is what is compared.
    data_range : float
        See `ssim_map`.
    """

    reference: Reference
    image: Grid
    channel: int
    gain: float
    offset: float
    data_range: float

    def __call__(self, box: Box) -> float:
        """Read both with the halo that the box needs, and return the sum over its voxels."""
        around = box.grown(SSIM_RADIUS).clipped(self.image.shape)
        fitted = self.gain * self.image.read(self.channel, around) + self.offset
        similarity = ssim_map(self.reference.read(around), fitted, self.data_range)
        return float(similarity[box.relative_to(around.start).slices].sum())
