"""Which blur a restored volume is blurred with again: what its model knows, or what is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from distributed import Client

from isosr_cluster.asking import ask_all
from isosr_models.errors import ModelFormatError
from isosr_models.model_folder import read_description, read_run
from isosr_models.reblurring import Reblur, kernel_reblur, load_reblur
from isosr_pipeline.blur.deconvolution import gaussian
from isosr_pipeline.blur.residual import is_of_self_blur, recorded_blur
from isosr_pipeline.devices import choose_device
from isosr_pipeline.errors import InputError, UnknownBlurError
from isosr_pipeline.restoring.fitting import Fit, least_of, measured_fit
from isosr_pipeline.restoring.models import IDENTITY
from isosr_pipeline.settings import Device
from isosr_pipeline.widths import FWHM_PER_SIGMA

_REMEDY = "give the FWHM in µm of the blur beyond the lateral one with --axial-fwhm"
_LONGEST = 512
"""Length of a Gaussian, in voxels, that is no mistake."""


class Blur(Protocol):
    """A blur as it travels to workers."""

    def load(self, device: Device) -> Reblur:
        """Load it."""
        ...


@dataclass(frozen=True)
class KnownBlur:
    """A `Blur` that a model knows, or that is given.

    Parameters
    ----------
    model : str or None
        A model folder whose weights hold it; None: it is a Gaussian along z.
    fwhm : float
        Of the Gaussian, in voxels of the isotropic grid.
    """

    model: str | None
    fwhm: float = 0.0

    def load(self, device: Device) -> Reblur:
        """Load it.

        Raises
        ------
        ModelFormatError
            When the model is damaged, or its weights hold no blur.
        InputError
            When there is no such device.
        """
        chosen = choose_device(device)
        if self.model is not None:
            return load_reblur(Path(self.model), chosen)
        return kernel_reblur(torch.from_numpy(gaussian([self.fwhm, 0.0, 0.0])), chosen)

    def described(self, voxel_size: float) -> str:
        """Say what it is, given the size of a voxel of the isotropic grid in µm."""
        if self.model is not None:
            return self.model
        return f"Gaussian along z, FWHM {self.fwhm * voxel_size:.3g} µm"


def known_blur(model: str, axial_fwhm: float | None, voxel_size: float) -> KnownBlur:
    """Find what a model knows of the blur.

    Parameters
    ----------
    model : str
        A model folder, or ``"identity"``.
    axial_fwhm : float or None
        FWHM in µm of a Gaussian along z that is taken in its place.
    voxel_size : float
        Of the isotropic grid, in µm.

    Raises
    ------
    UnknownBlurError
        When the model knows no blur, and none is given.
    InputError
        When one that is given is too long.
    ModelFormatError
        When the folder is no whole model.
    """
    if axial_fwhm is not None:
        if axial_fwhm > _LONGEST * voxel_size:
            raise InputError(
                f"axial_fwhm is {axial_fwhm:g} µm, more than {_LONGEST} voxels of {voxel_size:g} "
                "µm; give the width of the blur in µm"
            )
        return KnownBlur(None, axial_fwhm / voxel_size)
    if model == IDENTITY:
        raise UnknownBlurError(f"{IDENTITY} knows no blur; {_REMEDY}")
    folder = Path(model)
    try:
        if is_of_self_blur(folder):
            known = recorded_blur(read_run(folder), folder)
            sigma = math.sqrt((known.degradation.square_x + known.degradation.square_y) / 2)
            return KnownBlur(None, FWHM_PER_SIGMA * sigma * known.voxel_size_um / voxel_size)
        found = KnownBlur(str(folder.absolute()))
        found.load("cpu")
    except ModelFormatError as error:
        # What is wrong with the folder itself is said as it is.
        read_description(folder)
        raise UnknownBlurError(
            f"{model} knows no blur that can be used ({error}); {_REMEDY}"
        ) from error
    return found


def ask_for_fit(client: Client, blur: Blur, device: Device) -> Fit:
    """Ask all workers what they can do, and return what the least of them can.

    Parameters
    ----------
    client : distributed.Client
    blur : Blur
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    InputError
        When a GPU is asked for and a worker has none, or only some have one.
    """
    return least_of(ask_all(client, partial(_probe, blur, device)))


def _probe(blur: Blur, device: Device) -> Fit:
    if choose_device(device).type != "cuda":
        return Fit(None, 1.0, "32")
    return measured_fit(blur.load(device).function, "32")
