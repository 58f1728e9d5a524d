"""Train: a restorer from a volume's own sharp planes, on crops straight from the store."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from isosr_models.layers import calibrate
from isosr_models.methods import Objective, create_objective
from isosr_models.model_folder import DESCRIPTION, save_model
from isosr_models.patchgan import MIN_PLANE
from torch import Tensor
from torch.utils.data import DataLoader

from isosr_pipeline.crops import Crops, check_crop
from isosr_pipeline.devices import choose_device
from isosr_pipeline.errors import InputError, OutputExistsError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.output import versions
from isosr_pipeline.progress import Reporter, SilentReporter
from isosr_pipeline.settings import DEFAULT_PERCENTILES, TrainSettings
from isosr_pipeline.store.volume import Volume

LOSSES = "losses.csv"
CALIBRATION_CROPS = 16
_TRAINING, _CALIBRATION = 0, 1
_METHOD_PARAMETERS = {"width", "blur", "start", "planes", "cycle_weight", "learning_rate"}


def train(
    stores: Sequence[Path],
    model: Path,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> None:
    """Train a model and save it in a folder, with its losses as a table.

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes of one microscope.
    model : Path
        Folder to write.
    settings : TrainSettings
    overwrite : bool
        Whether to replace a model that is there.
    reporter : Reporter, optional

    Raises
    ------
    InputError
        When a volume or a parameter is not usable.
    OutputExistsError
        When `model` exists and may not be overwritten.
    DivergedError
        When a loss is no longer finite.
    """
    reporter = reporter or SilentReporter()
    _check_output(model, overwrite)
    if settings.iterations is None and settings.minutes is None:
        raise InputError("training has no end; give --iterations, --minutes or both")
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    parameters = settings.model_dump(include=_METHOD_PARAMETERS)
    objective = create_objective(settings.method, parameters, device)
    crops = _crops(stores, settings, objective.generator.stride)

    model.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    iterations = _optimise(objective, crops, model / LOSSES, settings, device, reporter)
    seconds = time.monotonic() - begin
    calibrate(objective.generator, _calibration_crops(crops, device))
    save_model(
        model,
        objective.networks(),
        method=settings.method,
        window_percentiles=DEFAULT_PERCENTILES,
        training={
            "stores": [_identity(store) for store in stores],
            "settings": settings.model_dump(mode="json"),
            "iterations": iterations,
            "seconds": round(seconds, 1),
            "device": str(device),
            "versions": versions(),
        },
    )


def _check_output(model: Path, overwrite: bool) -> None:
    if not model.exists():
        return
    if not model.is_dir() or (any(model.iterdir()) and not (model / DESCRIPTION).is_file()):
        raise OutputExistsError(f"{model} exists and is not a model; give another path")
    if (model / DESCRIPTION).is_file() and not overwrite:
        raise OutputExistsError(f"{model} is a model already; give another path, or --overwrite")


def _crops(stores: Sequence[Path], settings: TrainSettings, stride: int) -> Crops:
    crop = Zyx(*settings.crop)
    windows = []
    for store in stores:
        volume = Volume(store)
        volume.require_complete()
        check_crop(crop, IsotropicView(volume), stride, MIN_PLANE)
        windows.append([_window(volume, c, settings) for c in range(volume.shape[0])])
    return Crops(stores, crop, windows, settings.seed, _TRAINING)


def _window(volume: Volume, channel: int, settings: TrainSettings) -> tuple[float, float]:
    if settings.window is not None:
        return settings.window
    window = volume.window(channel, DEFAULT_PERCENTILES)
    return window.low, window.high


def _optimise(
    objective: Objective,
    crops: Crops,
    table: Path,
    settings: TrainSettings,
    device: torch.device,
    reporter: Reporter,
) -> int:
    """Take steps until the iterations or the minutes are over; return how many were taken."""
    limit = settings.iterations
    deadline = time.monotonic() + 60 * settings.minutes if settings.minutes else None
    total, unit = (limit, "iterations") if limit else (round(60 * (settings.minutes or 0)), "s")
    begin = reported = time.monotonic()
    count = 0
    with reporter.task("train", total, unit) as advance, _losses(table) as write:
        for crop in _stream(crops, settings):
            losses = objective.step(crop.to(device))
            count += 1
            write(count, losses)
            now = time.monotonic()
            remark = f"{count / (now - begin):.2f} it/s, " + _summary(losses)
            whole_seconds = int(now - begin) - int(reported - begin)
            advance(1 if limit else whole_seconds, remark)
            reported = now
            if count == limit or (deadline is not None and now >= deadline):
                break
    return count


def _stream(crops: Crops, settings: TrainSettings) -> Iterator[Tensor]:
    """Yield crops 0, 1, 2, … as batches of one, (1, 1, z, y, x)."""
    workers = settings.loaders
    loader = DataLoader(
        crops,
        batch_size=1,
        sampler=itertools.count(),  # type: ignore[arg-type]
        num_workers=workers,
        # Zarr's event loop does not survive a fork.
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader


def _calibration_crops(crops: Crops, device: torch.device) -> Iterator[Tensor]:
    others = Crops(crops.stores, crops.crop, crops.windows, crops.seed, _CALIBRATION)
    return (others[index][None].to(device) for index in range(CALIBRATION_CROPS))


@contextmanager
def _losses(table: Path) -> Iterator[Any]:
    """Write losses to a table of comma-separated values, a line a step."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)

        def write(count: int, losses: dict[str, float]) -> None:
            if count == 1:
                writer.writerow(["iteration", *losses])
            writer.writerow([count, *(f"{value:.6g}" for value in losses.values())])

        yield write


def _summary(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in losses.items())


def _identity(store: Path) -> dict[str, Any]:
    attributes = Volume(store).attributes
    return {"path": str(store.resolve()), "id": attributes.id if attributes else None}
