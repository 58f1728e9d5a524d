"""``isosr-pipeline simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from pydantic import model_validator

from isosr_pipeline.cli.options import StepCommand, setting, settings_from
from isosr_pipeline.settings import Lengths, Seed
from isosr_pipeline.simulation.acquisition import SCENE_WIDTHS_UM, Acquisition


class SimulateSettings(Acquisition):
    """Parameters of ``simulate``: what is imaged, and how.

    Attributes
    ----------
    scene : {"neurites", "beads", "cells"}
        Widths of the PSF that are not given are those of `SCENE_WIDTHS_UM`.
    shape : tuple of 3 ints
        Of the truth in voxels, order z, y, x.
    seed : int
        Of object, noise and shadows.
    """

    scene: str = "neurites"
    shape: Lengths = (128, 128, 128)
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _as_the_scene(cls, given: Any) -> Any:
        scene = given.get("scene") if isinstance(given, dict) else None
        if not isinstance(scene, str) or scene not in SCENE_WIDTHS_UM:
            return given
        lateral, axial = SCENE_WIDTHS_UM[scene]
        return {"lateral_fwhm_um": lateral, "axial_fwhm_um": axial, **given}


@click.command(
    "simulate",
    cls=StepCommand,
    example="isosr-pipeline simulate blurred.tif --truth truth.tif --scene beads --shape 128",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--truth", type=click.Path(path_type=Path), help="Where to write the truth.")
@setting(SimulateSettings, "scene", "neurites|beads|cells", "What is imaged.")
@setting(SimulateSettings, "shape", "Z,Y,X", "Of the truth, in voxels.")
@setting(SimulateSettings, "voxel_size_um", "S", "Of the truth, in µm.")
@setting(SimulateSettings, "lateral_fwhm_um", "W", "FWHM of the PSF in XY, in µm; of beads 1.98.")
@setting(SimulateSettings, "axial_fwhm_um", "W", "FWHM of the PSF along z, in µm; of beads 3.91.")
@setting(SimulateSettings, "bottom_axial_fwhm_um", "W", "The same at the last plane, in µm.")
@setting(SimulateSettings, "z_step", "N", "Every N-th plane is imaged.")
@setting(SimulateSettings, "photons", "N", "At the brightest voxel.")
@setting(SimulateSettings, "background", "N", "Photons everywhere.")
@setting(SimulateSettings, "stripes", "SHARE", "Of the light, that shadows along x take.")
@setting(SimulateSettings, "seed", "N", "Of object and noise.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def command(out: Path, truth: Path | None, overwrite: bool, **given: Any) -> None:
    """Simulate an acquisition and write it as the TIFF file OUT, with its voxel size.

    The truth is the same object under the lateral PSF along all axes, free of noise and shadows.
    Planes that --z-step leaves out are not there, after the blur, and the file says so.
    """
    settings = settings_from(SimulateSettings, given)
    from isosr_pipeline.steps.simulate import write_simulation

    write_simulation(
        out,
        truth,
        scene=settings.scene,
        shape=settings.shape,
        acquisition=settings,
        seed=settings.seed,
        overwrite=overwrite,
    )
