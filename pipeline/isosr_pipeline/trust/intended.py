"""The blur that a brain's restored volume is blurred with, or will be once its model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isosr_models.methods import find_method
from isosr_models.reblurring import Reblur, kernel_reblur, residual_kernel
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.brain import Brain
from isosr_pipeline.devices import choose_device
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.settings import Device
from isosr_pipeline.training.settings import RichardsonLucySettings, SelfBlurSettings
from isosr_pipeline.trust.blurs import Blur, known_blur


@dataclass(frozen=True)
class UntrainedBlur:
    """A `Blur` that a method will learn, made wherever it is loaded.

    Parameters
    ----------
    method : str
    parameters : mapping
        Of the method.
    """

    method: str
    parameters: Mapping[str, Any]

    def load(self, device: Device) -> Reblur:
        """Make it, untrained.

        Raises
        ------
        InputError
            When there is no such device.
        """
        make = find_method(self.method).reblur
        if make is None:
            raise ValueError(f"{self.method} learns no blur")
        return make(self.parameters, choose_device(device))


@dataclass(frozen=True)
class KernelOf:
    """A `Blur` that is one kernel.

    Parameters
    ----------
    kernel : ndarray, (z, y, x) float32
        On the isotropic grid, of odd lengths, with its centre in the middle.
    """

    kernel: NDArray[np.float32]

    def load(self, device: Device) -> Reblur:
        """Load it.

        Raises
        ------
        InputError
            When there is no such device.
        """
        return kernel_reblur(torch.from_numpy(self.kernel), choose_device(device))


def intended_blur(brain: Brain, trained: bool, voxel_size: float) -> tuple[Blur | None, str]:
    """Find what a brain's trust map will be made with.

    Parameters
    ----------
    brain : Brain
        That asks for a map.
    trained : bool
        Whether its model is there.
    voxel_size : float
        Of the isotropic grid, in µm.

    Returns
    -------
    tuple of (Blur or None, str)
        None: it will be told from the volume in training. And what it is, in words.

    Raises
    ------
    UnknownBlurError
        When its model knows no blur, and none is given.
    InputError, ModelFormatError
        When one that is given is too long, or the model is damaged.
    """
    given = brain.trust.axial_fwhm if brain.trust else None
    settings = brain.train
    if not trained and given is None and isinstance(settings, SelfBlurSettings):
        given = settings.axial_fwhm
        if given is None:
            return None, "told from the volume in training"
    if trained or given is not None:
        known = known_blur(str(brain.trained_model) if trained else IDENTITY, given, voxel_size)
        return known, known.described(voxel_size)
    if isinstance(settings, RichardsonLucySettings):
        network = deconvolution(settings, voxel_size)
        kernel = residual_kernel(network.psf, network.target).numpy()
        return KernelOf(kernel), "the PSF, less the resolution that it aims at"
    return UntrainedBlur(settings.method, settings.parameters()), "learned in training"
