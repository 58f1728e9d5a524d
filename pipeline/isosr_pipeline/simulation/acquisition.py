"""How a simulated object is imaged: PSF, sampling, light. Parameters of ``simulate``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from isosr_pipeline.settings import Settings

# Room above the brightest expected count for Poisson noise, so that uint16 never overflows.
MAX_COUNTS = 60000

SCENE_WIDTHS_UM = {"beads": (1.98, 3.91)}
"""Lateral and axial FWHM of a scene where none are given; of beads those of Park et al. 2022."""


class Acquisition(Settings):
    """How a simulated object is imaged.

    The PSF is a Gaussian, and one count is one photon. A blur along z that changes with depth does
    so linearly in its FWHM, from the first plane of the volume to the last.

    Attributes
    ----------
    voxel_size_um : float
        Edge of the isotropic voxels of the object and of the truth, µm, 0.2 to 2.
    lateral_fwhm_um : float
        Full width at half maximum of the PSF along y and x, µm; at least one voxel.
    axial_fwhm_um : float
        Full width at half maximum of the PSF along z, µm; at least the lateral one.
    bottom_axial_fwhm_um : float or None
        The same at the last plane of the volume, if it changes with depth: `axial_fwhm_um` is then
        that at the first plane. None: it does not.
    z_step : int
        Every ``z_step``-th plane is imaged; 1 images all of them.
    photons : float
        Photons, above the background, expected at the brightest voxel of the truth's field.
    background : float
        Photons expected everywhere, in image and truth.
    stripes : float
        Share of the excitation that the darkest shadows take, below 1: what lies in the way of a
        light sheet that comes along x casts shadows towards larger x. 0: there are none.
    """

    voxel_size_um: Annotated[float, Field(ge=0.2, le=2.0)] = 0.5
    lateral_fwhm_um: PositiveFloat = 1.2
    axial_fwhm_um: PositiveFloat = 3.6
    bottom_axial_fwhm_um: PositiveFloat | None = None
    z_step: PositiveInt = 1
    photons: Annotated[float, Field(gt=0, le=MAX_COUNTS)] = 200.0
    background: Annotated[float, Field(ge=0, le=MAX_COUNTS)] = 10.0
    stripes: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("lateral_fwhm_um")
    @classmethod
    def _sampled(cls, value: float, info: ValidationInfo) -> float:
        voxel = info.data.get("voxel_size_um", 0.0)
        if value < voxel:
            raise ValueError(
                f"is less than one voxel ({voxel} µm), which cannot sample the PSF; raise it, or "
                "lower voxel_size_um"
            )
        return value

    @field_validator("axial_fwhm_um", "bottom_axial_fwhm_um")
    @classmethod
    def _longest(cls, value: float | None, info: ValidationInfo) -> float | None:
        lateral = info.data.get("lateral_fwhm_um", 0.0)
        if value is not None and value < lateral:
            raise ValueError(
                f"is less than lateral_fwhm_um ({lateral} µm), and the PSF is longest along z; "
                "raise it"
            )
        return value

    @field_validator("background")
    @classmethod
    def _counted(cls, value: float, info: ValidationInfo) -> float:
        photons = info.data.get("photons", 0.0)
        if photons + value > MAX_COUNTS:
            raise ValueError(
                f"and photons ({photons}) exceed {MAX_COUNTS} counts together, what uint16 holds "
                "with the noise; lower either"
            )
        return value
