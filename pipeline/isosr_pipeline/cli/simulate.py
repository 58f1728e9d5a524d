"""``isosr-pipeline simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from pydantic import PositiveInt

from isosr_pipeline.cli.options import StepCommand, setting, settings_from
from isosr_pipeline.settings import Lengths, Seed, Settings


class SimulateSettings(Settings):
    """Parameters of ``simulate``; see `isosr_pipeline.simulation.Acquisition` for their rules."""

    scene: str = "neurites"
    shape: Lengths = (128, 128, 128)
    voxel_size_um: float = 0.5
    lateral_fwhm_um: float = 1.2
    axial_fwhm_um: float = 3.6
    z_step: PositiveInt = 1
    photons: float = 200.0
    background: float = 10.0
    seed: Seed = 0


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
@setting(SimulateSettings, "lateral_fwhm_um", "W", "Width of the PSF along y and x, in µm.")
@setting(SimulateSettings, "axial_fwhm_um", "W", "Width of the PSF along z, in µm.")
@setting(SimulateSettings, "z_step", "N", "Every N-th plane is imaged.")
@setting(SimulateSettings, "photons", "N", "At the brightest voxel.")
@setting(SimulateSettings, "background", "N", "Photons everywhere.")
@setting(SimulateSettings, "seed", "N", "Of object and noise.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def command(out: Path, truth: Path | None, overwrite: bool, **given: Any) -> None:
    """Simulate an acquisition and write it as the TIFF file OUT, with its voxel size.

    The truth is the same object under the lateral PSF along all axes, free of noise.
    """
    settings = settings_from(SimulateSettings, given)
    from isosr_pipeline.simulation import Acquisition
    from isosr_pipeline.steps.simulate import write_simulation

    acquisition = Acquisition(**settings.model_dump(exclude={"scene", "shape", "seed"}))
    write_simulation(
        out,
        truth,
        scene=settings.scene,
        shape=settings.shape,
        acquisition=acquisition,
        seed=settings.seed,
        overwrite=overwrite,
    )
