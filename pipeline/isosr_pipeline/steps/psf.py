"""Psf: the blur that a model has learned, its widths in µm, and a TIFF file of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from isosr_models.psf import SPOT, LearnedBlur, Width, broadening, learned_blur, widths
from isosr_pipeline.errors import InputError
from isosr_pipeline.store.multiscale import voxel_size_problem
from isosr_pipeline.tiffs import check_tiff, write_tiff


class Fwhm(BaseModel):
    """A full width at half maximum.

    Attributes
    ----------
    um : float
        In µm.
    complete : bool
        False: the kernel is cut off before the width is told, which is more than `um`.
    """

    model_config = ConfigDict(frozen=True)

    um: float
    complete: bool


class Psf(BaseModel):
    """What a model has learned of the blur.

    Attributes
    ----------
    model : str
        Its folder.
    blur : {"deep-linear", "unet", "given"}
        ``"unet"``: not a kernel but a response; see `isosr_models.psf.LearnedBlur`. ``"given"``:
        not learned, but what the model deconvolves with.
    background : float
        That the point of a U-Net's response stands on, with the intensity window at 0 and 1.
    voxel_size_um : float
        Of the isotropic grid.
    shape : tuple of 3 ints
        Of the kernel in voxels, order z, y, x.
    total : float
        Sum of the kernel: 1 keeps the mean intensity.
    negative : float
        Sum of its values below 0.
    fwhm : dict of str to Fwhm
        Of the kernel, along ``"z"``, ``"y"`` and ``"x"``.
    spot_um : float
        FWHM of a spot, and
    broadening_um : dict of str to Fwhm
        by how much the kernel broadens it; see `isosr_models.psf.broadening`.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    blur: Literal["deep-linear", "unet", "given"]
    background: float
    voxel_size_um: float
    shape: tuple[int, int, int]
    total: float
    negative: float
    fwhm: dict[str, Fwhm]
    spot_um: float
    broadening_um: dict[str, Fwhm]


def describe_psf(
    model: Path,
    out: Path | None = None,
    *,
    voxel_size: float | None = None,
    overwrite: bool = False,
) -> Psf:
    """Measure the blur that a model has learned, and write it as a TIFF file if asked to.

    Parameters
    ----------
    model : Path
        Folder that `train` wrote.
    out : Path, optional
        For the kernel, float32, order z, y, x, with its voxel size: OME-TIFF where the name ends
        with ``.ome.tif`` or ``.ome.tiff``, else ImageJ's TIFF.
    voxel_size : float, optional
        In µm, for a model that doesn't say its own.
    overwrite : bool
        Whether to replace a file at `out`.

    Raises
    ------
    InputError
        When a path is not usable, or the voxel size is not known or given against the model's.
    OutputExistsError
        When `out` is there and may not be replaced.
    ModelFormatError
        When the folder is no whole model, or keeps no blur.
    ModelError
        When the blur has no maximum to measure.
    """
    if out is not None:
        check_tiff(out, overwrite)
    learned = learned_blur(model)
    size = _voxel_size(model, learned, voxel_size)
    kernel = learned.kernel

    def named(measured: tuple[Width, Width, Width]) -> dict[str, Fwhm]:
        found = zip("zyx", measured, strict=True)
        return {axis: Fwhm(um=w.voxels * size, complete=w.complete) for axis, w in found}

    psf = Psf(
        model=str(model),
        blur=learned.kind,
        background=learned.background,
        voxel_size_um=size,
        shape=(kernel.shape[0], kernel.shape[1], kernel.shape[2]),
        total=float(kernel.sum()),
        negative=float(kernel[kernel < 0].sum()),
        fwhm=named(widths(kernel)),
        spot_um=SPOT * size,
        broadening_um=named(broadening(kernel)),
    )
    if out is not None:
        write_tiff(out, kernel, (size, size, size))
    return psf


def _voxel_size(model: Path, learned: LearnedBlur, given: float | None) -> float:
    own = learned.voxel_size
    if given is not None and (problem := voxel_size_problem((given, given, given))):
        raise InputError(f"--voxel-size: {problem}")
    if own is not None and given is not None and own != given:
        raise InputError(
            f"{model} was trained on voxels of {own:g} µm and --voxel-size is {given:g}; "
            "leave --voxel-size out"
        )
    if own is None and given is None:
        raise InputError(
            f"{model} does not say the voxel size that it was trained on, or was trained on "
            "several; give the isotropic one in µm as --voxel-size"
        )
    return own if own is not None else float(given or 0)
