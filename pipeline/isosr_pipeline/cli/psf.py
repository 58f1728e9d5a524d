"""``isosr-pipeline psf``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isosr_pipeline.cli.options import StepCommand

if TYPE_CHECKING:
    from isosr_pipeline.steps.psf import Fwhm, Psf

_STORE, _SELF_BLUR, _OTHER = "a volume", "a model of self-blur", "a model that learned a blur"
_PLURAL = {
    _STORE: "volumes",
    _SELF_BLUR: "models of self-blur",
    _OTHER: "models that learned a blur",
}
_OPTIONS = {
    _STORE: ("plot", "channel", "edge", "count", "seed"),
    _SELF_BLUR: ("plot",),
    _OTHER: ("out", "voxel_size"),
}
_OF_BEADS = ("voxel_size", "channel", "bead_diameter")


@click.command("psf", cls=StepCommand, example="isosr-pipeline psf brain.zarr --plot blur.svg")
@click.argument("path", metavar="MODEL|STORE|FILE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="TIFF file to write the kernel to.")
@click.option(
    "--voxel-size",
    metavar="S|Z,Y,X",
    help="In µm, for a model that doesn't say its own, or such a volume of beads.",
)
@click.option(
    "--from-beads",
    type=click.Path(path_type=Path),
    metavar="OUT.tif",
    help="Average the isolated beads of STORE or FILE, and write that PSF.",
)
@click.option(
    "--bead-diameter",
    type=click.FloatRange(min=0, min_open=True),
    metavar="UM",
    help="Also give widths less that of beads so large.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="SVG file for a picture.")
@click.option("--channel", type=click.IntRange(min=0), help="Of STORE or FILE.  [default: 0]")
@click.option(
    "--edge", type=click.IntRange(min=1), help="Of a sub-volume, in voxels.  [default: 64]"
)
@click.option("--count", type=click.IntRange(min=1), help="Sub-volumes, at most.  [default: 64]")
@click.option("--seed", type=click.IntRange(min=0), help="Of their places.  [default: 0]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    path: Path, from_beads: Path | None, overwrite: bool, as_json: bool, **given: Any
) -> None:
    """Say how wide the blur is that MODEL, a folder that train wrote, has learned.

    Full widths at half maximum of the learned kernel, through its largest value; and by how much it
    broadens a spot as wide as a microscope resolves, whatever the kernel's finest detail.

    Of STORE, an OME-Zarr volume, say how much more it is blurred along z than along y and x, told
    from its power spectrum alone. Of a MODEL of self-blur, say which blur it was trained to undo.

    --from-beads finds the isolated beads in STORE, or in FILE, anything that convert reads, says
    how wide they are, and writes their average: a PSF for train --method richardson-lucy.
    """
    if from_beads is not None:
        _describe_beads(path, from_beads, overwrite, as_json, given)
        return
    if given.pop("bead_diameter") is not None:
        raise click.UsageError("--bead-diameter is for beads; give --from-beads OUT.tif too")
    kind = _kind(path)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in [name for name in chosen if name not in _OPTIONS[kind]]:
        del chosen[name]
        # What is not there at all is said where it is looked for.
        if path.exists():
            others = " or ".join(_PLURAL[k] for k, names in _OPTIONS.items() if name in names)
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is for {others}, and {path} is {kind}; leave it out")
    describe = {_STORE: _describe_store, _SELF_BLUR: _describe_residual, _OTHER: _describe_model}
    describe[kind](path, chosen, overwrite, as_json)


def _describe_beads(
    path: Path, out: Path, overwrite: bool, as_json: bool, given: dict[str, Any]
) -> None:
    from isosr_pipeline.cli.bead_lines import bead_lines
    from isosr_pipeline.steps.beads import describe_beads

    chosen = {name: value for name, value in given.items() if value is not None}
    if wrong := [name for name in chosen if name not in _OF_BEADS]:
        option = f"--{wrong[0].replace('_', '-')}"
        raise click.UsageError(f"{option} means nothing with --from-beads; leave it out")
    beads = describe_beads(path, out, overwrite=overwrite, **chosen)
    if as_json:
        click.echo(beads.model_dump_json(indent=2))
        return
    for name, value in bead_lines(beads):
        click.echo(f"{name:<12} {value}")


def _kind(path: Path) -> str:
    """Tell volumes from models, which have their description; what is neither is no volume."""
    from isosr_models.model_folder import DESCRIPTION
    from isosr_pipeline.blur.residual import is_of_self_blur

    if (path / DESCRIPTION).exists():
        return _SELF_BLUR if is_of_self_blur(path) else _OTHER
    store = any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs"))
    return _STORE if store else _OTHER


def _describe_store(path: Path, chosen: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from isosr_pipeline.blur.of_stores import describe_blur
    from isosr_pipeline.cli.blur_lines import blur_lines

    blur = describe_blur(path, overwrite=overwrite, **chosen)
    if as_json:
        click.echo(blur.model_dump_json(indent=2))
        return
    for name, value in blur_lines(blur):
        click.echo(f"{name:<12} {value}")


def _describe_residual(path: Path, chosen: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from isosr_pipeline.blur.residual import describe_residual_blur
    from isosr_pipeline.cli.blur_lines import blur_lines

    blur = describe_residual_blur(path, overwrite=overwrite, **chosen)
    if as_json:
        click.echo(blur.model_dump_json(indent=2))
        return
    lines = [("model", str(path)), ("blur", next(blur.lines()))]
    lines += [line for volume in blur.volumes for line in blur_lines(volume)]
    for name, value in lines:
        click.echo(f"{name:<12} {value}")


def _describe_model(path: Path, chosen: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from isosr_pipeline.steps.psf import describe_psf

    if "voxel_size" in chosen:
        chosen["voxel_size"] = _number(chosen["voxel_size"])
    psf = describe_psf(path, overwrite=overwrite, **chosen)
    if as_json:
        click.echo(psf.model_dump_json(indent=2))
        return
    for name, value in _lines(psf):
        click.echo(f"{name:<12} {value}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.UsageError(
            f"--voxel-size is {text!r}: give one number, as a model's voxels are cubes"
        ) from error


def _lines(psf: Psf) -> list[tuple[str, str]]:
    kinds = {
        "given": "the PSF that it deconvolves with",
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
