"""Curves of a training, from the table of losses in the folder of its model."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from isosr_models.errors import ModelError
from isosr_models.model_folder import read_description
from isosr_pipeline.drawing import AFTER
from isosr_pipeline.errors import InputError
from isosr_pipeline.reporting.curves import Chart, Curve
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.training.recording import LOSSES

_MOST_POINTS = 400


def find_model(candidates: Iterable[Path], provenance: Provenance) -> Path | None:
    """Find the folder of the model that restored a volume.

    Parameters
    ----------
    candidates : iterable of Path
        Where it may be, besides the arguments of the command that the provenance names.
    provenance : Provenance
        Of `restore`.

    Returns
    -------
    Path or None
        None: none of them has the weights that the provenance names.
    """
    weights = provenance.parameters.get("model_sha256")
    if weights is None:
        return None
    named = (Path(word) for word in provenance.command if not word.startswith("-"))
    for folder in (*candidates, *named):
        try:
            if folder.is_dir() and read_description(folder).weights_sha256 == weights:
                return folder
        except (ModelError, OSError):
            continue
    return None


def loss_charts(model: Path) -> list[Chart]:
    """Draw each loss of a training against its iteration; none where none were recorded.

    Parameters
    ----------
    model : Path
        Folder of a model.

    Raises
    ------
    InputError
        When the table can't be read.
    """
    path = model / LOSSES
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _charts(csv.reader(file))
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is no table of losses ({error}); a training that goes on mends it"
        ) from error


def _charts(rows: Iterable[list[str]]) -> list[Chart]:
    lines = iter(rows)
    header = next(lines, None)
    if header is None:
        return []
    means = _Means(len(header))
    for row in lines:
        means.add([float(value) for value in row])
    x, *losses = means.columns()
    return [
        Chart(name, "iteration", "loss", [Curve("", x, y, AFTER)])
        for name, y in zip(header[1:], losses, strict=True)
    ]


class _Means:
    """Means of runs of rows, of twice as many rows whenever there are too many of them."""

    def __init__(self, width: int) -> None:
        self._width, self._rows_each = width, 1
        self._kept: list[list[float]] = []
        self._sums, self._count = [0.0] * width, 0

    def add(self, row: list[float]) -> None:
        if len(row) != self._width:
            raise ValueError(f"a line has {len(row)} columns, and the first one {self._width}")
        self._sums = [a + b for a, b in zip(self._sums, row, strict=True)]
        self._count += 1
        if self._count < self._rows_each:
            return
        self._kept.append([value / self._count for value in self._sums])
        self._sums, self._count = [0.0] * self._width, 0
        if len(self._kept) == _MOST_POINTS:
            pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
            self._kept = [[(a + b) / 2 for a, b in zip(*p, strict=True)] for p in pairs]
            self._rows_each *= 2

    def columns(self) -> list[list[float]]:
        return [list(column) for column in zip(*self._kept, strict=True)] or [
            [] for _ in range(self._width)
        ]
