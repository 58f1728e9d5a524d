"""The training loop: steps, losses, checkpoints, and stopping when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from isosr_models.checkpoint import Progress, save_checkpoint
from isosr_models.objective import Objective, Scheduled
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.loading import batches
from isosr_pipeline.training.recording import Recorder
from isosr_pipeline.training.settings import TrainSettings
from isosr_pipeline.training.stored_crops import StoredCrop, prepare
from isosr_pipeline.training.team import Team
from isosr_pipeline.training.watching import Watch

SECONDS_BETWEEN_CHECKPOINTS = 300.0


def optimise(
    objective: Objective,
    crops: Crops,
    model: Path,
    settings: TrainSettings,
    start: Progress,
    team: Team,
    calibration: Callable[[], Iterable[Tensor]],
) -> Progress:
    """Take steps until the iterations or the minutes are over; return how far that is.

    Parameters
    ----------
    objective : Objective
    crops : Crops
    model : Path
        Folder for checkpoints, the table of losses and previews.
    settings : TrainSettings
    start : Progress
        How far an earlier part of the run came: to its end, perhaps, where that is another now.
    team : Team
        Each of its processes calls this.
    calibration : callable
        Returns the crops, (1, 1, z, y, x), that normalisation is calibrated on when it is frozen.

    Raises
    ------
    InterruptedRunError
        After Ctrl-C or SIGTERM; the checkpoint is written.
    DivergedError
        When a loss is no longer finite, or training has collapsed.
    """
    loop = _Loop(objective, model, team, _Clock(settings, start))
    vote = loop.vote(False)
    if vote.is_over:
        loop.watch.conclude()
        return start
    clock = loop.clock
    with (
        _recorder(model, settings, crops, start, team) as recorder,
        team.reporter.task("train", *clock.scale, clock.shown) as advance,
        team.listening() as stopping,
    ):
        share = team.fabric.global_rank, team.fabric.world_size
        for stored in batches(crops, settings, start.iterations, team.fabric.device, share):
            loop.set_normalisation(vote.is_late, calibration)
            shown = clock.shown
            losses = loop.step(stored)
            if recorder is not None:
                recorder.record(clock.progress.iterations, losses, objective)
            loop.watch.see(losses, objective.contrast)
            advance(clock.shown - shown, f"{clock.remark}, {_summary(losses)}")
            vote = loop.vote(stopping())
            if vote.is_over:
                loop.watch.conclude()
                return clock.progress
            if vote.is_due or vote.is_stopped:
                loop.save()
            if vote.is_stopped:
                raise InterruptedRunError(
                    f"interrupted at iteration {clock.progress.iterations}; all is saved: go on "
                    "with --resume (run does so by itself)"
                )
    raise RuntimeError("the endless series of crops has ended")


class _Vote(NamedTuple):
    """What the processes of a training have decided on together."""

    is_over: bool
    is_late: bool
    is_due: bool
    is_stopped: bool


class _Loop:
    """What one process does in each turn."""

    def __init__(self, objective: Objective, model: Path, team: Team, clock: _Clock) -> None:
        self._objective, self._model, self._team = objective, model, team
        self.clock = clock
        self.watch = Watch(**clock.progress.watch)

    def set_normalisation(self, is_late: bool, calibration: Callable[[], Iterable[Tensor]]) -> None:
        """Freeze normalisation in the last share, and not before: its end may have been moved."""
        if is_late == self._objective.norm_frozen:
            return
        if is_late:
            self._average_statistics()
            self._objective.freeze_norm(calibration())
        else:
            self._objective.release_norm()

    def step(self, stored: StoredCrop) -> dict[str, float]:
        """Improve the networks on a batch, and return the losses by name."""
        if isinstance(self._objective, Scheduled):
            self._objective.set_share(self._team.of_first(self.clock.share))
        losses = self._objective.step(prepare(stored, self._team.fabric.device))
        self.clock.count()
        return losses

    def vote(self, is_stopped: bool) -> _Vote:
        """Decide with the other processes what comes next."""
        clock = self.clock
        flags = clock.is_over, clock.is_late, clock.is_checkpoint_due, is_stopped
        return _Vote(*self._team.agree(*flags))

    def save(self) -> None:
        """Write a checkpoint."""
        self._average_statistics()
        if self._team.is_first:
            progress = self.clock.progress.model_copy(update={"watch": asdict(self.watch)})
            save_checkpoint(self._model, self._objective, progress, good=self.watch.is_calm)
        self.clock.checkpointed()

    def _average_statistics(self) -> None:
        self._objective.execution.average_statistics(self._objective.modules().values())


def _recorder(
    model: Path, settings: TrainSettings, crops: Crops, start: Progress, team: Team
) -> AbstractContextManager[Recorder | None]:
    """Return what records the steps, in the one process that does."""
    if not team.is_first:
        return nullcontext()
    return Recorder(model, settings, crops, start.iterations, team.reporter.say)


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
    def remark(self) -> str:
        """Iterations per second since training was begun or resumed; minutes left, if few."""
        taken = self.progress.iterations - self._start.iterations
        rate = taken / (time.monotonic() - self._begin)
        minutes, limit = self._settings.minutes, self._settings.iterations
        left = minutes - self.progress.seconds / 60 if minutes and limit else None
        if left is None or rate * 60 * left >= (limit or 0) - self.progress.iterations:
            return f"{rate:.2f} it/s"
        # The bar counts iterations, which will not all be taken.
        return f"{rate:.2f} it/s, ends in {max(left, 0):.1f} min"

    @property
    def is_over(self) -> bool:
        minutes, limit = self._settings.minutes, self._settings.iterations
        out_of_time = minutes is not None and self.progress.seconds >= 60 * minutes
        return out_of_time or (limit is not None and self.progress.iterations >= limit)

    @property
    def is_late(self) -> bool:
        """Whether the last share has begun, in which normalisation is frozen."""
        share, minutes = self._settings.late_share, self._settings.minutes
        limit = self._settings.iterations
        by_time = minutes is not None and self.progress.seconds >= 60 * minutes * (1 - share)
        by_count = limit is not None and self.progress.iterations >= limit * (1 - share)
        return share > 0 and (by_time or by_count)

    @property
    def share(self) -> float:
        """Share of the training that has been done, by whichever limit is nearer."""
        minutes, limit = self._settings.minutes, self._settings.iterations
        by_time = self.progress.seconds / (60 * minutes) if minutes is not None else 0.0
        by_count = self.progress.iterations / limit if limit is not None else 0.0
        return max(by_time, by_count)

    @property
    def is_checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved >= SECONDS_BETWEEN_CHECKPOINTS

    def checkpointed(self) -> None:
        self._saved = time.monotonic()

    def count(self) -> None:
        seconds = round(self._start.seconds + time.monotonic() - self._begin, 1)
        self.progress = self.progress.model_copy(
            update={"iterations": self.progress.iterations + 1, "seconds": seconds}
        )


def _summary(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
