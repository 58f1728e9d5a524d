"""``isosr-pipeline train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from isosr_pipeline.cli import options
from isosr_pipeline.cli.method_options import either, setting, switch
from isosr_pipeline.cli.options import StepCommand, existing_options, settings_from
from isosr_pipeline.settings import IfExists
from isosr_pipeline.training.settings import METHODS, TrainSettings


@click.command(
    "train",
    cls=StepCommand,
    example="isosr-pipeline train brain.zarr model/ --iterations 20000 --width 64 --device cuda",
)
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@setting("preset", "cfm|ot-lsm-brain|ot-lsm-beads", "The publication's parameters.")
@options.setting(TrainSettings, "method", "|".join(METHODS), "How the restorer is made.")
@setting("iterations", "N", "Steps of training; this or --minutes is needed.")
@setting("minutes", "M", "Stop after this time, or --iterations if sooner.")
@setting("crop", "Z,Y,X", "What networks see at once, in isotropic voxels.")
@setting("sampling", "foreground|uniform", "Where crops are taken from.")
@setting("batch", "N", "Crops a step.")
@setting("width", "N", "Channels of the networks' first level.")
@setting("neighbours", "N", "Slices seen on each side of the one that is restored.")
@setting("blocks", "N", "Residual blocks of each network.")
@setting("critic_width", "N", "Channels of the discriminators' first layer.")
@setting("blur", "deep-linear|unet", "The generator that blurs.")
@setting("start", "identity|random", "Where training starts; random: as published.")
@setting("planes", "N", "Planes of each orientation and crop.")
@setting("measured", "SHARE", "Of steps that learn from measured planes to the end.")
@setting("patch", "N", "Side of the square patches that are trained on, in voxels.")
@setting("patches", "N", "Lateral patches, and axial ones, a step.")
@setting("downsampling", "F", "Of lateral patches; default: the distance of measured planes.")
@either("noise", "Give what is blurred in training the noise of lateral planes.")
@setting("feedback_weight", "W", "Of DeblurNet's loss in the training of the degradation.")
@setting("ssim_weight", "W", "Of 1 - SSIM beside Charbonnier's loss.")
@setting("cycle_weight", "L", "Weight of the cycle-consistency loss.")
@setting("learning_rate", "R", "Of Adam.")
@setting("beta1", "B", "Of Adam; 0.5 is steadier at larger learning rates.")
@setting("average", "D", "Decay of an average of the weights; 0: keep the last.")
@setting("freeze_norm", "SHARE", "Of the end, normalised as in restore; 0: none.")
@switch("projections", "Show D_X maximum projections over 2 to 10 voxels.")
@switch("shared_axial", "One discriminator for XZ and YZ planes.")
@setting("bottleneck_norm", "true|false", "Normalise the U-Nets' bottleneck.")
@switch("gradient_checkpointing", "Less memory, more time; the same result.")
@setting("psf", "PSF.tif", "The PSF, to deconvolve with; see psf --from-beads.")
@setting("psf_voxel_size", "Z,Y,X", "Of PSF.tif, in µm, where it doesn't say it.")
@setting("axial_fwhm", "UM", "Along z: of the PSF; for self-blur, of what is left of it.")
@setting("lateral_fwhm", "UM", "Of that PSF along y and x; 0: undo z only.")
@setting("resolution", "lateral|full", "To deconvolve to: that along y and x, or beyond it.")
@setting("window", "LOW,HIGH", "Intensities that are 0 and 1; default: recorded.")
@setting("percentiles", "0.03|3", "The recorded window: 0.03-99.97 or 3-97 %.")
@either("rotations", "Turn crops about z by random quarter turns.")
@setting("init", "MODEL", "A trained model whose weights training starts from.")
@setting("loaders", "N", "Processes that read crops ahead.")
@setting("threads", "N", "Processor threads of the networks; default: one a core.")
@setting("preview_every", "N", "Steps between pictures of the result; 0: none.")
@either("tensorboard", "Write losses and pictures for TensorBoard.")
@setting("seed", "N", "Of crops, weights and planes.")
@setting("device", "auto|cpu|cuda", "auto: the GPU if there is one.")
@setting("devices", "N", "GPUs, or processes on the CPU, that train together.")
@setting("precision", "auto|32|bf16", "auto: bf16 on GPUs that have it, else 32.")
@either("compile", "Compile the generators where the machine can.")
@click.option(
    "--parameters",
    type=click.Path(path_type=Path),
    help="YAML with any of these, as below train in a brain file; options come first.",
)
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    metavar="local|SITE.yaml",
    help="Where it runs: here, or in a job of a SLURM site, which is waited for.",
)
@existing_options
def command(
    stores: tuple[Path, ...],
    model: Path,
    if_exists: IfExists,
    parameters: Path | None,
    cluster: str,
    **given: Any,
) -> None:
    """Train MODEL, a folder, on one or several STORES of one microscope.

    Crops are read straight from the stores. Ctrl-C or SIGTERM saves all; --resume goes on.
    """
    settings = settings_from(TrainSettings, given, parameters)
    from isosr_cluster.clients import LOCAL
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.site_files import is_site_file, read_site

    reporter = reporter_for(sys.stderr)
    if is_site_file(cluster):
        from isosr_pipeline.steps.train_in_job import train_in_job

        site = read_site(Path(cluster))
        train_in_job(stores, model, settings, site, reporter, if_exists=if_exists)
        return
    if cluster != LOCAL:
        raise click.UsageError(
            f"--cluster is {cluster!r}: training runs here (local) or in a job of a site "
            "(SITE.yaml); give one of them"
        )
    from isosr_pipeline.steps.train import train

    train(stores, model, settings, if_exists=if_exists, reporter=reporter)
