"""The training loop: steps, losses, checkpoints, and stopping when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from isosr_models.checkpoint import Progress, save_checkpoint
from isosr_models.methods import Objective
from isosr_pipeline.crops import Crops
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.loading import batches
from isosr_pipeline.recording import Recorder
from isosr_pipeline.settings import TrainSettings
from isosr_pipeline.stored_crops import prepare
from isosr_pipeline.team import Team
from isosr_pipeline.watching import Watch

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
        How far an earlier part of the run came.
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
    clock = _Clock(settings, start)
    watch = Watch()
    (is_late,) = team.agree(clock.is_late)
    with (
        _recorder(model, settings, crops, start, team) as recorder,
        team.reporter.task("train", *clock.scale, clock.shown) as advance,
        team.listening() as stopping,
    ):
        share = team.fabric.global_rank, team.fabric.world_size
        device = team.fabric.device
        for stored in batches(crops, settings, start.iterations, device, share):
            if is_late and not objective.norm_frozen:
                objective.execution.average_statistics(objective.modules().values())
                objective.freeze_norm(calibration())
            losses = objective.step(prepare(stored, device))
            shown = clock.shown
            clock.count()
            if recorder is not None:
                recorder.record(clock.progress.iterations, losses, objective)
            watch.see(losses, objective.contrast)
            advance(clock.shown - shown, f"{clock.remark}, {_summary(losses)}")
            is_over, is_due, is_stopped, is_late = team.agree(
                clock.is_over, clock.is_checkpoint_due, stopping(), clock.is_late
            )
            if is_over:
                return clock.progress
            if is_due or is_stopped:
                objective.execution.average_statistics(objective.modules().values())
                if team.is_first:
                    save_checkpoint(model, objective, clock.progress, good=watch.is_calm)
                clock.checkpointed()
            if is_stopped:
                raise InterruptedRunError(
                    f"interrupted at iteration {clock.progress.iterations}; all is saved: go on "
                    "with --resume (run does so by itself)"
                )
    raise RuntimeError("the endless series of crops has ended")


def _recorder(
    model: Path, settings: TrainSettings, crops: Crops, start: Progress, team: Team
) -> AbstractContextManager[Recorder | None]:
    """Return what records the steps, in the one process that does."""
    return Recorder(model, settings, crops, start.iterations) if team.is_first else nullcontext()


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
        share, minutes = self._settings.freeze_norm, self._settings.minutes
        limit = self._settings.iterations
        by_time = minutes is not None and self.progress.seconds >= 60 * minutes * (1 - share)
        by_count = limit is not None and self.progress.iterations >= limit * (1 - share)
        return share > 0 and (by_time or by_count)

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
