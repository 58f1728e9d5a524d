"""The training loop: steps, losses, checkpoints, and stopping when asked to."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from isosr_models.checkpoint import Progress, save_checkpoint
from isosr_models.methods import Objective
from isosr_pipeline.crops import Crops
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.interrupts import stop_requests
from isosr_pipeline.progress import Reporter
from isosr_pipeline.settings import TrainSettings
from isosr_pipeline.stored_crops import StoredCrop, prepare

LOSSES = "losses.csv"
SECONDS_BETWEEN_CHECKPOINTS = 300.0


def optimise(
    objective: Objective,
    crops: Crops,
    model: Path,
    settings: TrainSettings,
    start: Progress,
    reporter: Reporter,
) -> Progress:
    """Take steps until the iterations or the minutes are over; return how far that is.

    Parameters
    ----------
    objective : Objective
    crops : Crops
    model : Path
        Folder for checkpoints and the table of losses.
    settings : TrainSettings
    start : Progress
        How far an earlier part of the run came.
    reporter : Reporter

    Raises
    ------
    InterruptedRunError
        After Ctrl-C or SIGTERM; the checkpoint is written.
    DivergedError
        When a loss is no longer finite.
    """
    device = next(objective.restorer.parameters()).device
    clock = _Clock(settings, start)
    table = _LossTable(model / LOSSES, start.iterations)
    with reporter.task("train", *clock.scale, clock.shown) as advance, stop_requests() as stopping:
        for stored in _stream(crops, settings, start.iterations, device):
            losses = objective.step(prepare(stored, device))
            shown = clock.shown
            clock.count()
            table.write(clock.progress.iterations, losses)
            advance(clock.shown - shown, f"{clock.rate:.2f} it/s, {_summary(losses)}")
            if clock.is_over:
                return clock.progress
            if stopping() or clock.is_checkpoint_due:
                save_checkpoint(model, objective, clock.progress)
                clock.checkpointed()
            if stopping():
                raise InterruptedRunError(
                    f"interrupted at iteration {clock.progress.iterations}; all is saved: go on "
                    "with --resume (run does so by itself)"
                )
    raise RuntimeError("the endless series of crops has ended")


class _Clock:
    """Knows how far training is, in iterations and in time, and when what is due."""

    def __init__(self, settings: TrainSettings, start: Progress) -> None:
        self._settings, self._start = settings, start
        self._begin = self._saved = time.monotonic()
        self.progress = start

    @property
    def scale(self) -> tuple[int, str]:
        """Total and unit of the progress bar."""
        if self._settings.iterations is not None:
            return self._settings.iterations, "iterations"
        return round(60 * (self._settings.minutes or 0)), "s"

    @property
    def shown(self) -> int:
        """Position of the progress bar."""
        if self._settings.iterations is not None:
            return self.progress.iterations
        return min(int(self.progress.seconds), self.scale[0])

    @property
    def rate(self) -> float:
        """Iterations per second since training was begun or resumed."""
        taken = self.progress.iterations - self._start.iterations
        return taken / (time.monotonic() - self._begin)

    @property
    def is_over(self) -> bool:
        minutes, limit = self._settings.minutes, self._settings.iterations
        out_of_time = minutes is not None and self.progress.seconds >= 60 * minutes
        return out_of_time or (limit is not None and self.progress.iterations >= limit)

    @property
    def is_checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved >= SECONDS_BETWEEN_CHECKPOINTS

    def checkpointed(self) -> None:
        self._saved = time.monotonic()

    def count(self) -> None:
        self.progress = Progress(
            iterations=self.progress.iterations + 1,
            seconds=round(self._start.seconds + time.monotonic() - self._begin, 1),
            run=self._start.run,
        )


def _stream(
    crops: Crops, settings: TrainSettings, first: int, device: torch.device
) -> Iterator[StoredCrop]:
    """Yield batches of crops as they are stored; `first` steps have been taken before."""
    workers = settings.loaders
    yield from DataLoader(
        crops,
        batch_size=settings.batch,
        sampler=_CountFrom(first * settings.batch),
        num_workers=workers,
        # Its own, since a loader draws from the random numbers that training goes on with.
        generator=torch.Generator(),
        # Zarr's event loop does not survive a fork.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_leave_signals_to_the_driver,
        # Pinned memory is what lets a copy to a GPU go on beside its work.
        pin_memory=device.type == "cuda",
    )


def _leave_signals_to_the_driver(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _CountFrom(torch.utils.data.Sampler[int]):
    """The numbers from the first on, without end."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        index = self._first
        while True:
            yield index
            index += 1


class _LossTable:
    """Losses as comma-separated values, a line a step; lines after the checkpoint are dropped."""

    def __init__(self, path: Path, iterations: int) -> None:
        kept = path.read_text(encoding="utf-8").splitlines()[: 1 + iterations] if iterations else []
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path, self._has_header = path, bool(kept)

    def write(self, iteration: int, losses: dict[str, float]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self._has_header:
                writer.writerow(["iteration", *losses])
                self._has_header = True
            writer.writerow([iteration, *(f"{value:.6g}" for value in losses.values())])


def _summary(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
