"""Models for which nothing is trained: written in a moment, and restored with as any other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isosr_models.model_folder import save_model
from isosr_models.richardson_lucy import RichardsonLucy
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.engine.output import versions
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.settings import IfExists
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.crops import check_alike
from isosr_pipeline.training.resuming import alone, clear, describe_run, find
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.training.team import Team


def save_deconvolution(
    stores: Sequence[Path],
    model: Path,
    settings: RichardsonLucySettings,
    if_exists: IfExists,
    team: Team,
) -> None:
    """Write a model that deconvolves with a PSF, on the isotropic grid of volumes.

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes of one microscope.
    model : Path
        Folder to write.
    settings : RichardsonLucySettings
    if_exists : {"refuse", "resume", "overwrite"}
    team : Team
        Its first process writes.

    Raises
    ------
    InputError
        When a volume is not usable, or the PSF is none or too long.
    OutputExistsError, ResumeError
        When `model` exists and may not be overwritten, or is another one.
    BusyError
        When another process writes `model` now.
    """
    voxel_size = _voxel_size(stores)
    network = deconvolution(settings, voxel_size)
    run = describe_run(stores, model, settings, team)
    found = team.first(partial(find, model, if_exists, run))
    if found is not None:
        team.reporter.say(f"{model} is there already")
        return
    with alone(model, if_exists, run, found, team):
        team.first(partial(_save, network, model, settings, voxel_size, run))
    z, y, x = network.psf.shape
    team.reporter.say(
        f"a PSF of {z} × {y} × {x} voxels of {voxel_size:g} µm; {settings.iterations} iterations "
        f"need a halo of {network.receptive_radius}"
    )


def _voxel_size(stores: Sequence[Path]) -> float:
    views = []
    for store in stores:
        volume = Volume(store)
        volume.require_complete()
        views.append(IsotropicView(volume))
    check_alike(views)
    return views[0].voxel_size[2]


def _save(
    network: RichardsonLucy,
    model: Path,
    settings: RichardsonLucySettings,
    voxel_size: float,
    run: dict[str, Any],
) -> None:
    clear(model)
    save_model(
        model,
        {"generator": network},
        method=settings.method,
        window_percentiles=settings.window_percentiles,
        window=settings.window,
        voxel_size=voxel_size,
        training={"run": run, "versions": versions()},
    )
