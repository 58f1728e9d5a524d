"""Train: a restorer from a volume's own sharp planes, on crops straight from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from isosr_models.checkpoint import (
    CHECKPOINT,
    FAILURE,
    Progress,
    go_back,
    load_checkpoint,
    read_failure,
    read_progress,
    remove_checkpoints,
    save_checkpoint,
)
from isosr_models.compiling import compile_network
from isosr_models.errors import DivergedError
from isosr_models.execution import Execution
from isosr_models.initial import start_from
from isosr_models.layers import calibrate
from isosr_models.methods import Objective, create_objective
from isosr_models.model_folder import DESCRIPTION, read_description, read_run, save_model
from isosr_models.ot_cyclegan import OTCycleGANConfig
from isosr_models.patchgan import MIN_PLANE
from isosr_models.unet import UNet3d
from isosr_pipeline.crops import Crops, check_alike, check_crop
from isosr_pipeline.engine.ledger import differences
from isosr_pipeline.engine.output import refuse_overlap, versions
from isosr_pipeline.errors import (
    InputError,
    OutputExistsError,
    ResumeError,
)
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.paths import check_creatable, make_folder
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.recording import remove_records
from isosr_pipeline.settings import IfExists, TrainSettings
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.team import Team, check_devices, launch
from isosr_pipeline.training import optimise

CALIBRATION_CROPS = 16
_TRAINING, _CALIBRATION = 0, 1
_METHOD_PARAMETERS = set(OTCycleGANConfig.model_fields)
# A preset is compared by what it sets.
_FREE_TO_CHANGE = {"preset", "loaders", "threads", "device", "preview_every", "tensorboard"}
_END = {"iterations", "minutes"}
"""What an unfinished training may be resumed with another value of."""
_REMEDIES = {"learning_rate", "beta1", "cycle_weight", "seed"}
"""What a training that broke down may be resumed with another value of, too."""


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
    DivergedError
        When a loss is no longer finite, or training has collapsed; the last good checkpoint is the
        one to go on from.
    InterruptedRunError
        After a signal; the checkpoint is written.
    """
    reporter = reporter or SilentReporter()
    check_training(settings)
    refuse_overlap(model, stores)
    check_creatable(model)
    launch(partial(_train, list(stores), model, settings, if_exists), settings, reporter)


def _train(
    stores: list[Path], model: Path, settings: TrainSettings, if_exists: IfExists, team: Team
) -> None:
    """Train in one of the processes."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # The same everywhere: all begin with the same weights, and look at the same planes.
    torch.manual_seed(settings.seed)
    parameters = settings.model_dump(include=_METHOD_PARAMETERS)
    device = team.fabric.device
    objective = create_objective(settings.method, parameters, device)
    objective.execution = Execution(team.fabric)
    crops = _crops(stores, settings, objective.restorer.stride)
    run = {
        "stores": [_identity(store) for store in stores],
        **settings.model_dump(mode="json", exclude=_FREE_TO_CHANGE),
        "init": _begun_from(settings.init, model),
    }
    if settings.init is not None:
        # Before a model is cleared away for it, so that one of another kind costs nothing.
        start_from(objective, settings.init, run)
    found = team.first(partial(_find, model, if_exists, run))
    if found == "model":
        team.reporter.say(f"{model} is trained already")
        return
    for remark in crops.remarks():
        team.reporter.say(remark)
    start = _begin(model, objective, run, found == "checkpoint", team)
    if settings.compile:
        _compile(objective, settings, team)
    with _going_back(model, team):
        calibration = partial(_calibration_crops, crops, device)
        progress = optimise(objective, crops, model, settings, start, team, calibration)
        objective.execution.average_statistics(objective.modules().values())
        record = {
            **progress.model_dump(mode="json"),
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


def _begin(
    model: Path, objective: Objective, run: dict[str, Any], is_begun: bool, team: Team
) -> Progress:
    """Return where training starts or goes on, with a checkpoint of it in the folder."""
    if is_begun:
        start = _go_on(model, objective, run, team)
        team.reporter.say(f"going on from iteration {start.iterations}")
        return start
    start = Progress(iterations=0, seconds=0.0, run=run)
    if team.is_first:
        make_folder(model)
        # From the first moment on the folder is known as an unfinished training.
        save_checkpoint(model, objective, start)
    return start


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
        voxel_size=IsotropicView(Volume(crops.stores[0])).voxel_size[2],
        training=record,
    )
    remove_checkpoints(model)


def check_training(settings: TrainSettings) -> None:
    """Refuse parameters that no training can be done with, whatever the volume.

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
    if settings.init is not None:
        read_description(settings.init)


def _find(
    model: Path, if_exists: IfExists, run: dict[str, Any]
) -> Literal["model", "checkpoint"] | None:
    """Return what to go on from; clear the folder, or refuse it, as asked."""
    trained, begun = (model / DESCRIPTION).is_file(), (model / CHECKPOINT).is_file()
    if model.exists() and not (trained or begun):
        if not model.is_dir() or any(model.iterdir()):
            raise OutputExistsError(f"{model} exists and is not a model; give another path")
        return None
    if not (trained or begun):
        return None
    if if_exists == "refuse":
        state = "is a model already" if trained else "holds an unfinished training"
        raise OutputExistsError(
            f"{model} {state}; give another path, --resume to go on with it, or --overwrite"
        )
    if if_exists == "overwrite":
        (model / DESCRIPTION).unlink(missing_ok=True)
        remove_checkpoints(model)
        remove_records(model)
        return None
    done = read_run(model) if trained else read_progress(model).run
    free = set() if trained else _END | (_REMEDIES if read_failure(model) else set())
    fixed = {key: value for key, value in run.items() if key not in free}
    done = {key: value for key, value in done.items() if key not in free}
    if differing := differences(done, fixed):
        raise ResumeError(
            f"{model} was trained in another way ({differing}); resume with the same stores and "
            "parameters, or start again with --overwrite"
        )
    return "model" if trained else "checkpoint"


@contextmanager
def _going_back(model: Path, team: Team) -> Iterator[None]:
    """Where training breaks down, leave the last good checkpoint as the one to go on from."""
    try:
        yield
    except DivergedError as error:
        kept = team.first(partial(go_back, model, str(error)))
        raise type(error)(
            f"{error}. The checkpoint of iteration {kept} is kept: go on from it with --resume and "
            "a smaller --learning-rate or another --seed, or begin anew with --overwrite and the "
            "weights of a good model, --init"
        ) from error


def _go_on(model: Path, objective: Objective, run: dict[str, Any], team: Team) -> Progress:
    """Load the checkpoint; a breakdown goes on the record once, with what was changed since."""
    found = load_checkpoint(model, objective)
    start = found.model_copy(update={"run": run})
    team.fabric.barrier()
    if team.is_first and (failure := read_failure(model)):
        record = {**failure, "changed": differences(found.run, run)}
        start = start.model_copy(update={"failures": (*found.failures, record)})
        save_checkpoint(model, objective, start)
        (model / FAILURE).unlink()
    return start


def _begun_from(init: Path | None, model: Path) -> dict[str, str] | None:
    """Return what the run is known by of the model that it starts from."""
    if init is None:
        return None
    if init.resolve() == model.resolve():
        raise InputError(
            f"init is {init}, which is also the model to be trained; give the new one another path"
        )
    return {"path": str(init.resolve()), "sha256": read_description(init).weights_sha256}


def _crops(stores: Sequence[Path], settings: TrainSettings, stride: int) -> Crops:
    crop = Zyx(*settings.crop)
    windows, views = [], []
    for store in stores:
        volume = Volume(store)
        volume.require_complete()
        views.append(IsotropicView(volume))
        check_crop(crop, views[-1], stride, MIN_PLANE)
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


def _identity(store: Path) -> dict[str, Any]:
    attributes = Volume(store).attributes
    return {"path": str(store.resolve()), "id": attributes.id if attributes else None}
