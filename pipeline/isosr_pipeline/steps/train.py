"""Train: a restorer from a volume's own sharp planes, on crops straight from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isosr_models.checkpoint import Progress, remove_checkpoints
from isosr_models.compiling import compile_network
from isosr_models.execution import Execution
from isosr_models.initial import start_from
from isosr_models.layers import calibrate
from isosr_models.methods import create_objective, find_method
from isosr_models.model_folder import Description, read_description, save_model
from isosr_models.objective import Objective
from isosr_models.unet import UNet3d
from isosr_pipeline.blur.residual import ResidualBlur, find_residual_blur, recorded_blur
from isosr_pipeline.engine.output import refuse_overlap, versions
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.paths import check_creatable
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import IfExists
from isosr_pipeline.steps.train_nothing import save_deconvolution
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.crops import Crops, are_alike, check_alike, check_crop
from isosr_pipeline.training.loop import optimise
from isosr_pipeline.training.resuming import (
    TOLD,
    alone,
    begin,
    describe_run,
    find,
    going_back,
    is_begun,
    recorded_run,
)
from isosr_pipeline.training.settings import (
    OTCycleGANSettings,
    RichardsonLucySettings,
    SelfBlurSettings,
    TrainSettings,
)
from isosr_pipeline.training.team import Team, check_devices, launch

CALIBRATION_CROPS = 16
_TRAINING, _CALIBRATION = 0, 1


def train(
    stores: Sequence[Path],
    model: Path,
    settings: TrainSettings,
    *,
    if_exists: IfExists = "refuse",
    reporter: Reporter | None = None,
) -> None:
    """Train a model and save it in a folder, with its losses as a table.

    Interrupted by Ctrl-C or SIGTERM it saves a checkpoint, from which training goes on exactly as
    if it had not been interrupted (on the CPU: the same weights, bit for bit).

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes of one microscope.
    model : Path
        Folder to write.
    settings : TrainSettings
    if_exists : {"refuse", "resume", "overwrite"}
        What to do with a model, or an unfinished one, at `model`.
    reporter : Reporter, optional

    Raises
    ------
    InputError
        When a volume or a parameter is not usable.
    OutputExistsError, ResumeError
        When `model` exists and may not be overwritten or resumed.
    BusyError
        When another process trains `model` now.
    DivergedError
        When a loss is no longer finite, or training has collapsed; the last good checkpoint is the
        one to go on from.
    InterruptedRunError
        After a signal; the checkpoint is written.
    """
    reporter = reporter or SilentReporter()
    check_training(settings, model)
    refuse_overlap(model, stores)
    check_creatable(model)
    launch(partial(_train, list(stores), model, settings, if_exists), settings, reporter)


def _train(
    stores: list[Path], model: Path, settings: TrainSettings, if_exists: IfExists, team: Team
) -> None:
    """Train in one of the processes."""
    if isinstance(settings, RichardsonLucySettings):
        save_deconvolution(stores, model, settings, if_exists, team)
        return
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # The same everywhere: all begin with the same weights, and look at the same planes.
    torch.manual_seed(settings.seed)
    crops = _crops(stores, settings)
    run = describe_run(stores, model, settings, team)
    found = team.first(partial(find, model, if_exists, run))
    if found == "model":
        team.reporter.say(f"{model} is trained already")
        return
    parameters = settings.parameters()
    if isinstance(settings, SelfBlurSettings):
        begun = found == "checkpoint"
        blur = team.first(partial(_residual_blur, crops, settings, model if begun else None))
        for line in blur.lines():
            team.reporter.say(line)
        run[TOLD] = blur.model_dump(mode="json")
        parameters["degradation"] = blur.degradation
    objective = create_objective(settings.method, parameters, team.fabric.device, _z_step(crops))
    objective.execution = Execution(team.fabric)
    if found is None and settings.init is not None:
        # Before a model is cleared away for it, so that one of another kind costs nothing.
        _check_init(settings.init, settings, _voxel_size(crops))
        start_from(objective, settings.init, run)
    for remark in crops.remarks():
        team.reporter.say(remark)
    with alone(model, if_exists, run, found, team):
        start = begin(model, objective, run, found == "checkpoint", team)
        if isinstance(settings, OTCycleGANSettings) and settings.compile:
            _compile(objective, settings, team)
        _optimise(objective, crops, model, settings, start, team)


def _residual_blur(crops: Crops, settings: SelfBlurSettings, begun: Path | None) -> ResidualBlur:
    """Tell the blur, or return the one that a begun training has."""
    if begun is not None:
        return recorded_blur(recorded_run(begun), begun)
    return find_residual_blur(crops.stores, crops.windows, settings.seed, settings.axial_fwhm)


def _optimise(
    objective: Objective,
    crops: Crops,
    model: Path,
    settings: TrainSettings,
    start: Progress,
    team: Team,
) -> None:
    """Train from a start to the end, and save the model."""
    device = team.fabric.device
    with going_back(model, team):
        calibration = partial(_calibration_crops, crops, device)
        progress = optimise(objective, crops, model, settings, start, team, calibration)
        objective.execution.average_statistics(objective.modules().values())
        record = {
            **progress.model_dump(mode="json", exclude={"watch"}),
            "device": str(device),
            "versions": versions(),
        }
        team.first(partial(_finish, objective, crops, model, settings, record, device))


def _compile(objective: Objective, settings: TrainSettings, team: Team) -> None:
    """Compile the generators, or say why not."""
    crops = torch.zeros((settings.batch, 1, *settings.crop), device=team.fabric.device)
    for name, network in objective.modules().items():
        # The linear blur is a Fourier transform, which gains nothing.
        if name not in ("generator", "blur") or not isinstance(network, UNet3d):
            continue
        if why := compile_network(network, crops, objective.execution):
            team.reporter.say(f"{name} is not compiled, and trained as it is ({why})")


def _finish(
    objective: Objective,
    crops: Crops,
    model: Path,
    settings: TrainSettings,
    record: dict[str, Any],
    device: torch.device,
) -> None:
    """Freeze the normalisation and save the model."""
    # Weights that were trained with fixed statistics belong to those.
    if not objective.norm_frozen:
        calibrate(objective.restorer, _calibration_crops(crops, device))
    save_model(
        model,
        objective.networks(),
        method=settings.method,
        window_percentiles=settings.window_percentiles,
        window=settings.window,
        voxel_size=_voxel_size(crops),
        training=record,
    )
    remove_checkpoints(model)


def check_training(settings: TrainSettings, model: Path) -> None:
    """Refuse parameters that no training can be done with, whatever the volume.

    Parameters
    ----------
    settings : TrainSettings
    model : Path
        Folder to write. A training that has begun there needs no model to start from any more.

    Raises
    ------
    InputError
        When training would not end, or the device is not there.
    ModelFormatError
        When there is no model to start from.
    """
    if settings.iterations is None and settings.minutes is None:
        raise InputError("training has no end; give --iterations, --minutes or both")
    check_devices(settings)
    if settings.init is not None and not is_begun(model):
        read_description(settings.init)


def _check_init(init: Path, settings: TrainSettings, voxel_size: float) -> None:
    """Refuse a model that has learned to see other voxels, or other intensities as 0 and 1."""
    known = read_description(init)
    if known.voxel_size is not None and not are_alike(known.voxel_size, voxel_size):
        raise InputError(
            f"{init} was trained on isotropic voxels of {known.voxel_size:g} µm and these stores "
            f"have {voxel_size:g} µm, and a model is of one microscope; leave --init out"
        )
    if settings.window is None:
        _check_percentiles(init, known, settings.window_percentiles)


def _check_percentiles(init: Path, known: Description, percentiles: tuple[float, float]) -> None:
    low, high = percentiles
    if known.window is not None:
        bottom, top = known.window
        raise InputError(
            f"{init} was trained with the intensities {bottom:g} and {top:g} as 0 and 1, and here "
            f"it would be the {low:g} and {high:g} percentiles; give --window, as there or as it "
            "fits these stores"
        )
    if known.window_percentiles != percentiles:
        bottom, top = known.window_percentiles
        raise InputError(
            f"{init} was trained with the {bottom:g} and {top:g} percentiles as 0 and 1, and here "
            f"it would be the {low:g} and {high:g} percentiles; give --percentiles {bottom:g}"
        )


def _voxel_size(crops: Crops) -> float:
    return IsotropicView(Volume(crops.stores[0])).voxel_size[2]


def _z_step(crops: Crops) -> float:
    """Return how far measured planes lie apart, in voxels of the isotropic grid."""
    return 1 / IsotropicView(Volume(crops.stores[0])).planes_per_voxel


def _crops(stores: Sequence[Path], settings: TrainSettings) -> Crops:
    crop = Zyx(*settings.crop)
    method = find_method(settings.method)
    stride = method.architecture(settings.parameters()).stride
    windows, views = [], []
    for store in stores:
        volume = Volume(store)
        volume.require_complete()
        views.append(IsotropicView(volume))
        check_crop(crop, views[-1], stride, method.least_crop)
        windows.append([_window(volume, c, settings) for c in range(volume.shape[0])])
    check_alike(views)
    return Crops(
        stores,
        crop,
        windows,
        settings.seed,
        _TRAINING,
        sampling=settings.sampling,
        rotations=settings.rotations,
    )


def _window(volume: Volume, channel: int, settings: TrainSettings) -> tuple[float, float]:
    if settings.window is not None:
        return settings.window
    window = volume.window(channel, settings.window_percentiles)
    return window.low, window.high


def _calibration_crops(crops: Crops, device: torch.device) -> Iterator[Tensor]:
    others = crops.of_stream(_CALIBRATION)
    return (others.read(index, device)[None] for index in range(CALIBRATION_CROPS))
