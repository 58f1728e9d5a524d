"""Train: a restorer from a volume's own sharp planes, on crops straight from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from isosr_models.checkpoint import (
    CHECKPOINT,
    Progress,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from isosr_models.layers import calibrate
from isosr_models.methods import create_objective
from isosr_models.model_folder import DESCRIPTION, read_run, save_model
from isosr_models.ot_cyclegan import OTCycleGANConfig
from isosr_models.patchgan import MIN_PLANE
from isosr_pipeline.crops import Crops, check_alike, check_crop
from isosr_pipeline.devices import choose_device
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
from isosr_pipeline.settings import DEFAULT_PERCENTILES, IfExists, TrainSettings
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training import LOSSES, optimise

CALIBRATION_CROPS = 16
_TRAINING, _CALIBRATION = 0, 1
_METHOD_PARAMETERS = set(OTCycleGANConfig.model_fields)
_FREE_TO_CHANGE = {"loaders", "threads", "device"}
_END = {"iterations", "minutes"}
"""What an unfinished training may be resumed with another value of."""


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
        When a loss is no longer finite.
    InterruptedRunError
        After a signal; the checkpoint is written.
    """
    reporter = reporter or SilentReporter()
    check_training(settings)
    refuse_overlap(model, stores)
    check_creatable(model)
    device = choose_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    parameters = settings.model_dump(include=_METHOD_PARAMETERS)
    objective = create_objective(settings.method, parameters, device)
    crops = _crops(stores, settings, objective.restorer.stride)
    run = {
        "stores": [_identity(store) for store in stores],
        **settings.model_dump(mode="json", exclude=_FREE_TO_CHANGE),
    }
    found = _find(model, if_exists, run)
    if found == "model":
        reporter.say(f"{model} is trained already")
        return
    for remark in crops.remarks():
        reporter.say(remark)
    make_folder(model)
    start = Progress(iterations=0, seconds=0.0, run=run)
    if found == "checkpoint":
        start = load_checkpoint(model, objective).model_copy(update={"run": run})
        reporter.say(f"going on from iteration {start.iterations}")
    else:
        # From the first moment on the folder is known as an unfinished training.
        save_checkpoint(model, objective, start)
    progress = optimise(objective, crops, model, settings, start, reporter)
    calibrate(objective.restorer, _calibration_crops(crops, device))
    save_model(
        model,
        objective.networks(),
        method=settings.method,
        window_percentiles=DEFAULT_PERCENTILES,
        window=settings.window,
        training={
            **progress.model_dump(mode="json"),
            "device": str(device),
            "versions": versions(),
        },
    )
    (model / CHECKPOINT).unlink(missing_ok=True)


def check_training(settings: TrainSettings) -> None:
    """Refuse parameters that no training can be done with, whatever the volume.

    Raises
    ------
    InputError
        When training would not end, or the device is not there.
    """
    if settings.iterations is None and settings.minutes is None:
        raise InputError("training has no end; give --iterations, --minutes or both")
    choose_device(settings.device)


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
        for name in (DESCRIPTION, CHECKPOINT, LOSSES):
            (model / name).unlink(missing_ok=True)
        return None
    done = read_run(model) if trained else read_progress(model).run
    fixed = run if trained else {key: value for key, value in run.items() if key not in _END}
    done = {key: value for key, value in done.items() if trained or key not in _END}
    if differing := differences(done, fixed):
        raise ResumeError(
            f"{model} was trained in another way ({differing}); resume with the same stores and "
            "parameters, or start again with --overwrite"
        )
    return "model" if trained else "checkpoint"


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
    window = volume.window(channel, DEFAULT_PERCENTILES)
    return window.low, window.high


def _calibration_crops(crops: Crops, device: torch.device) -> Iterator[Tensor]:
    others = crops.of_stream(_CALIBRATION)
    return (others.read(index, device)[None] for index in range(CALIBRATION_CROPS))


def _identity(store: Path) -> dict[str, Any]:
    attributes = Volume(store).attributes
    return {"path": str(store.resolve()), "id": attributes.id if attributes else None}
