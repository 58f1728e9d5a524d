"""Status: how far steps have come, their rate and failures; seen from any shell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from isosr_models.checkpoint import CHECKPOINT, read_progress
from isosr_models.model_folder import DESCRIPTION
from isosr_pipeline.brain import Brain
from isosr_pipeline.engine.survey import Failure, Survey, finished_at, survey
from isosr_pipeline.errors import MissingInputError
from isosr_pipeline.store.volume import Volume

State = Literal["not begun", "unfinished", "complete"]

_SHOWN_FAILURES = 5


class PassStatus(BaseModel):
    """How far a pass over a store has come.

    Attributes
    ----------
    name : str
    done, failed : int
        Regions.
    total : int or None
    rate : float
        Regions a second over the last minutes.
    eta_seconds : float or None
        None where nothing is being done.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    done: int
    failed: int
    total: int | None
    rate: float
    eta_seconds: float | None


class StoreStatus(BaseModel):
    """How far the filling of a store has come.

    Attributes
    ----------
    path : str
    state : {"not begun", "unfinished", "complete"}
    passes : list of PassStatus
    failures : list of Failure
        The last few.
    failed : int
        Regions that failed and are not done.
    idle_seconds : float or None
        Since the last region was done, or since the last start if that was later.
    finished : float or None
        Unix time at which the store was finished.
    host, pid : str and int, or None
        Who has begun to fill it, or gone on with it, last.
    running : bool or None
        Whether that process still runs; None where it can't be told from this machine.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    state: State
    passes: list[PassStatus] = []
    failures: list[Failure] = []
    failed: int = 0
    idle_seconds: float | None = None
    finished: float | None = None
    host: str | None = None
    pid: int | None = None
    running: bool | None = None


class StepStatus(BaseModel):
    """How far a step of a brain has come.

    Attributes
    ----------
    step : {"convert", "train", "restore", "evaluate"}
    state : {"not begun", "unfinished", "complete"}
    path : str
        What the step makes.
    detail : str
    store : StoreStatus or None
        For steps that fill a store.
    """

    model_config = ConfigDict(frozen=True)

    step: str
    state: State
    path: str
    detail: str = ""
    store: StoreStatus | None = None


def status_of_store(path: Path, now: float | None = None) -> StoreStatus:
    """Say how far a store is filled; it takes no lock, and disturbs nobody.

    Parameters
    ----------
    path : Path
    now : float, optional
        Unix time in seconds.

    Raises
    ------
    InputError
        When it is no OME-Zarr volume.
    """
    now = time.time() if now is None else now
    # The ledger first: where it goes meanwhile, the store is complete.
    found = survey(path, now)
    own = Volume(path).attributes
    if own is None or own.complete:
        return StoreStatus(path=str(path), state="complete", finished=finished_at(path))
    if found is None:
        return StoreStatus(path=str(path), state="unfinished")
    return StoreStatus(path=str(path), state="unfinished", **_figures(found, now))


def _figures(found: Survey, now: float) -> dict[str, Any]:
    opening = found.opening
    since = opening.opened if opening else 0.0
    running = opening.runs() if opening else None
    passes = []
    for one in found.passes.values():
        rate = one.rate(since, now) if running is not False else 0.0
        left = None if one.total is None else one.total - len(one.done)
        passes.append(
            PassStatus(
                name=one.name,
                done=len(one.done),
                failed=len(one.failed),
                total=one.total,
                rate=rate,
                eta_seconds=left / rate if left is not None and rate > 0 else None,
            )
        )
    last = max(filter(None, (found.last, since)), default=None)
    return {
        "passes": passes,
        "failures": found.failures[-_SHOWN_FAILURES:],
        "failed": sum(one.failed for one in passes),
        "idle_seconds": None if last is None else max(0.0, now - last),
        "host": opening.host if opening else None,
        "pid": opening.pid if opening else None,
        "running": running,
    }


def status_of_brain(brain: Brain, now: float | None = None) -> list[StepStatus]:
    """Say how far each step of a brain has come, in their order.

    Parameters
    ----------
    brain : Brain
    now : float, optional
        Unix time in seconds.
    """
    return [
        _filling("convert", brain.store, now),
        _training(brain),
        _filling("restore", brain.restored, now),
        _evaluation(brain),
    ]


def missing_results(brain: Brain) -> list[Path]:
    """Return what the step evaluate makes that is not there, or is older than what it tells of.

    Figures, and what the trust map comes to if one is asked for, are of the restored volume; the
    report shows all of them.

    Parameters
    ----------
    brain : Brain
    """
    told = [brain.evaluation, *([brain.trust_summary] if brain.trust else [])]
    restored = finished_at(brain.restored) or 0.0
    missing = [path for path in told if _written_at(path) < restored]
    if _written_at(brain.report) < max(restored, *map(_written_at, told)):
        missing.append(brain.report)
    return missing


def _written_at(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else -1.0


def _evaluation(brain: Brain) -> StepStatus:
    missing = missing_results(brain)
    state: State = "complete"
    if missing:
        state = "not begun" if brain.evaluation in missing else "unfinished"
    detail = ", ".join(path.name for path in missing) if state == "unfinished" else ""
    return StepStatus(
        step="evaluate",
        state=state,
        path=str(brain.evaluation),
        detail=detail and f"{detail} not there, or older than what it tells of",
    )


def _filling(step: str, path: Path, now: float | None) -> StepStatus:
    try:
        store = status_of_store(path, now)
    except MissingInputError:
        return StepStatus(step=step, state="not begun", path=str(path))
    return StepStatus(step=step, state=store.state, path=str(path), store=store)


def _training(brain: Brain) -> StepStatus:
    path = brain.trained_model
    if (path / DESCRIPTION).is_file():
        given = "given, so that none is trained" if brain.model else ""
        return StepStatus(step="train", state="complete", path=str(path), detail=given)
    if (path / CHECKPOINT).is_file():
        reached = f"iteration {read_progress(path).iterations}"
        ends = brain.train.iterations
        detail = reached if ends is None else f"{reached} of {ends}"
        return StepStatus(step="train", state="unfinished", path=str(path), detail=detail)
    return StepStatus(step="train", state="not begun", path=str(path))
