"""``isosr-pipeline train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from isosr_pipeline.cli.options import StepCommand, existing_options, setting, settings_from, switch
from isosr_pipeline.settings import IfExists, TrainSettings


@click.command(
    "train",
    cls=StepCommand,
    example="isosr-pipeline train brain.zarr model/ --iterations 20000 --width 64 --device cuda",
)
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@setting(TrainSettings, "method", "METHOD", "How the restorer is made.")
@setting(TrainSettings, "iterations", "N", "Steps of training; this or --minutes is needed.")
@setting(TrainSettings, "minutes", "M", "Stop after this time, or --iterations if sooner.")
@setting(TrainSettings, "crop", "Z,Y,X", "What networks see at once, in isotropic voxels.")
@setting(TrainSettings, "sampling", "foreground|uniform", "Where crops are taken from.")
@switch(TrainSettings, "rotations", "Turn crops about z by random quarter turns.")
@setting(TrainSettings, "batch", "N", "Crops a step.")
@setting(TrainSettings, "width", "N", "Channels of the networks' first level.")
@setting(TrainSettings, "blur", "deep-linear|unet", "The generator that blurs.")
@setting(TrainSettings, "start", "identity|random", "Where training starts; random: as published.")
@setting(TrainSettings, "planes", "N", "Planes of each orientation and crop.")
@setting(TrainSettings, "cycle_weight", "L", "Weight of the cycle-consistency loss.")
@setting(TrainSettings, "learning_rate", "R", "Of Adam.")
@setting(TrainSettings, "beta1", "B", "Of Adam; 0.5 is steadier at larger learning rates.")
@setting(TrainSettings, "average", "D", "Decay of an average of the weights; 0: keep the last.")
@setting(TrainSettings, "window", "LOW,HIGH", "Intensities that are 0 and 1; default: recorded.")
@setting(TrainSettings, "loaders", "N", "Processes that read crops ahead.")
@setting(TrainSettings, "threads", "N", "Processor threads of the networks; default: one a core.")
@setting(TrainSettings, "seed", "N", "Of crops, weights and planes.")
@setting(TrainSettings, "device", "auto|cpu|cuda", "auto: the GPU if there is one.")
@existing_options
def command(stores: tuple[Path, ...], model: Path, if_exists: IfExists, **given: Any) -> None:
    """Train MODEL, a folder, on one or several STORES of one microscope.

    Crops are read straight from the stores. Ctrl-C or SIGTERM saves all; --resume goes on.
    """
    settings = settings_from(TrainSettings, given)
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.train import train

    train(
        stores,
        model,
        settings,
        if_exists=if_exists,
        reporter=reporter_for(sys.stderr),
    )
