"""What a brain's restorer is, or will be once it is trained."""

from __future__ import annotations

from isosr_models.architectures import Architecture, describe
from isosr_models.methods import find_method
from isosr_models.model_folder import read_description
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.brain import Brain
from isosr_pipeline.training.settings import RichardsonLucySettings


def architecture_of(brain: Brain, voxel_size: float | None = None) -> Architecture:
    """Return what a brain's restorer is, or will be once it is trained.

    Parameters
    ----------
    brain : Brain
    voxel_size : float, optional
        Of the isotropic grid, in µm; a PSF that is to be deconvolved with needs it.

    Raises
    ------
    ModelFormatError
        When the model that the brain names is none.
    InputError
        When its PSF can't be read, is none, or is too long.
    ValueError
        When the voxel size is needed, and not given.
    """
    if brain.model is not None:
        return read_description(brain.model).network
    if isinstance(brain.train, RichardsonLucySettings):
        if voxel_size is None:
            raise ValueError("voxel_size is None, and a PSF is to be brought onto a grid; give it")
        return describe(deconvolution(brain.train, voxel_size))
    return find_method(brain.train.method).architecture(brain.train.parameters())
