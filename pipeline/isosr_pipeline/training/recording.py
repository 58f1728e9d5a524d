"""What a training leaves to look at: a table of losses, pictures, and TensorBoard's files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from isosr_models.layers import Statistics
from isosr_models.objective import Objective
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.previews import Previews, remove_previews
from isosr_pipeline.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOSSES = "losses.csv"
TENSORBOARD = "tensorboard"


class Recorder:
    """Records the steps of a training; a context manager.

    Parameters
    ----------
    model : Path
        Folder of the model.
    settings : TrainSettings
    crops : Crops
        Those of the training.
    iterations : int
        Steps that an earlier part of the run took; what was recorded of later ones is dropped.
    say : callable
        Shows a line.
    """

    def __init__(
        self,
        model: Path,
        settings: TrainSettings,
        crops: Crops,
        iterations: int,
        say: Callable[[str], None],
    ) -> None:
        if iterations and not (model / LOSSES).is_file():
            say(f"{model / LOSSES} is gone, and begins again after iteration {iterations}")
        self._every = settings.preview_every
        self._table = _LossTable(model / LOSSES, iterations)
        self._previews = Previews(model, crops) if self._every else None
        self._board = _board(model, iterations) if settings.tensorboard else None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._board is not None:
            self._board.close()

    def record(self, iteration: int, losses: dict[str, float], objective: Objective) -> None:
        """Record a step; a picture is drawn after the first, and every so often."""
        self._table.write(iteration, losses)
        if self._board is not None:
            for name, value in losses.items():
                self._board.add_scalar(f"losses/{name}", value, iteration)
        if self._previews is not None and (iteration == 1 or iteration % self._every == 0):
            statistics: Statistics = "frozen" if objective.norm_frozen else "block"
            picture = self._previews.draw(objective.restorer, iteration, statistics)
            if self._board is not None:
                self._board.add_image("crops", picture, iteration, dataformats="HW")


def remove_records(model: Path) -> None:
    """Remove what an earlier training recorded."""
    (model / LOSSES).unlink(missing_ok=True)
    remove_previews(model)
    for path in (model / TENSORBOARD).glob("events.out.tfevents.*"):
        path.unlink()


def _board(model: Path, iterations: int) -> SummaryWriter:
    # It takes a second to import, which only those who ask for it should wait for.
    from torch.utils.tensorboard import SummaryWriter

    purge = iterations + 1 if iterations else None
    return SummaryWriter(str(model / TENSORBOARD), purge_step=purge)


class _LossTable:
    """Losses as comma-separated values, a line a step; lines after the checkpoint are dropped."""

    def __init__(self, path: Path, iterations: int) -> None:
        found = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [row for row in found[1:] if _is_of(row, range(1, iterations + 1))]
        kept = [found[0], *rows] if rows else []
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path, self._has_header = path, bool(kept)

    def write(self, iteration: int, losses: dict[str, float]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self._has_header:
                writer.writerow(["iteration", *losses])
                self._has_header = True
            writer.writerow([iteration, *(f"{value:.6g}" for value in losses.values())])


def _is_of(row: str, iterations: range) -> bool:
    number = row.partition(",")[0]
    return number.isdigit() and int(number) in iterations
