"""``isosr-pipeline psf``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from isosr_pipeline.cli.options import StepCommand

if TYPE_CHECKING:
    from isosr_pipeline.steps.psf import Fwhm, Psf


@click.command("psf", cls=StepCommand, example="isosr-pipeline psf model/ --out kernel.tif")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="TIFF file to write the kernel to.")
@click.option(
    "--voxel-size", type=float, metavar="S", help="In µm, for a model that doesn't say its own."
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Path, out: Path | None, voxel_size: float | None, overwrite: bool, as_json: bool
) -> None:
    """Say how wide the blur is that MODEL, a folder that train wrote, has learned.

    Full widths at half maximum of the learned kernel, through its largest value; and by how much it
    broadens a spot as wide as a microscope resolves, whatever the kernel's finest detail.
    """
    from isosr_pipeline.steps.psf import describe_psf

    psf = describe_psf(model, out, voxel_size=voxel_size, overwrite=overwrite)
    if as_json:
        click.echo(psf.model_dump_json(indent=2))
        return
    for name, value in _lines(psf):
        click.echo(f"{name:<12} {value}")


def _lines(psf: Psf) -> list[tuple[str, str]]:
    kinds = {
        "deep-linear": "the kernel of the deep linear generator",
        "unet": "the response of a U-Net, which has no single kernel, to a point on a background "
        f"of {psf.background:.3g}, the intensity window being 0 to 1",
    }
    return [
        ("model", psf.model),
        ("blur", kinds[psf.blur]),
        ("kernel", f"{' × '.join(map(str, psf.shape))} voxels of {psf.voxel_size_um:g} µm"),
        ("sum", f"{psf.total:.3g}, of which below zero {psf.negative:.3g}"),
        *((f"FWHM {axis}", _width(fwhm)) for axis, fwhm in psf.fwhm.items()),
        (
            "broadens",
            f"a spot of {psf.spot_um:.3g} µm by "
            + ", ".join(f"{axis} {_width(more)}" for axis, more in psf.broadening_um.items()),
        ),
    ]


def _width(fwhm: Fwhm) -> str:
    return f"{'' if fwhm.complete else 'more than '}{fwhm.um:.3g} µm"
