"""Begun trainings: what a folder holds, and by which rules one is gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
from isosr_models.errors import DivergedError
from isosr_models.model_folder import DESCRIPTION, read_description, read_run
from isosr_models.objective import Objective
from isosr_pipeline.engine.ledger import differences
from isosr_pipeline.errors import BusyError, InputError, OutputExistsError, ResumeError
from isosr_pipeline.locking import passing_lock
from isosr_pipeline.paths import make_folder, reading
from isosr_pipeline.settings import IfExists
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.recording import remove_records
from isosr_pipeline.training.settings import RichardsonLucySettings, TrainSettings
from isosr_pipeline.training.team import Team, choose_precision

# A preset is compared by what it sets.
_FREE_TO_CHANGE = {"preset", "loaders", "threads", "device", "preview_every", "tensorboard"}
_END = {"iterations", "minutes"}
"""What an unfinished training may be resumed with another value of."""
_REMEDIES = {"learning_rate", "beta1", "cycle_weight", "seed"}
"""What a training that broke down may be resumed with another value of, too."""
_MACHINE = {"precision", "processes"}
"""What depends on the machine, and is of no account once a model is trained."""

TOLD = "residual_blur"
"""What a run has found out when it began, which follows from stores and parameters."""

_LOCK = "lock"
"""File in the folder while it is written to."""

Found = Literal["model", "checkpoint"] | None


def describe_run(
    stores: Sequence[Path], model: Path, settings: TrainSettings, team: Team
) -> dict[str, Any]:
    """Return what a training is known by: another one does not go on from its checkpoint.

    Raises
    ------
    InputError
        When the model to start from is the one to be trained.
    ModelFormatError
        When there is no model to start from, and training has not begun.
    """
    return {
        **_described(stores, model, settings),
        "precision": choose_precision(settings),
        "processes": team.fabric.world_size,
    }


def _described(stores: Sequence[Path], model: Path, settings: TrainSettings) -> dict[str, Any]:
    """Return what of a run does not depend on the machine."""
    return {
        "stores": [_identity(store) for store in stores],
        **settings.model_dump(
            mode="json", exclude={*_FREE_TO_CHANGE, "precision", *settings.meaningless}
        ),
        "init": _begun_from(settings.init, model),
        **_psf(settings),
    }


def is_trained(stores: Sequence[Path], model: Path, settings: TrainSettings) -> bool:
    """Tell whether a model is there that needs no training any more, on any machine.

    Parameters
    ----------
    stores : sequence of Path
    model : Path
    settings : TrainSettings

    Raises
    ------
    ResumeError
        When there is a model of another run.
    """
    if not (model / DESCRIPTION).is_file():
        return False
    return find(model, "resume", _described(stores, model, settings)) == "model"


def is_begun(model: Path) -> bool:
    """Return whether a folder holds a model or an unfinished training."""
    return (model / DESCRIPTION).is_file() or (model / CHECKPOINT).is_file()


def find(model: Path, if_exists: IfExists, run: dict[str, Any]) -> Found:
    """Return what is there to go on from; None: training begins.

    Parameters
    ----------
    model : Path
    if_exists : {"refuse", "resume", "overwrite"}
    run : dict
        Of the training that is asked for.

    Raises
    ------
    OutputExistsError
        When the folder holds something else, or may be neither resumed nor overwritten.
    ResumeError
        When what it holds is of another run.
    """
    trained = (model / DESCRIPTION).is_file()
    if not is_begun(model):
        if model.exists() and (not model.is_dir() or any(p.name != _LOCK for p in model.iterdir())):
            raise OutputExistsError(f"{model} exists and is not a model; give another path")
        return None
    if if_exists == "overwrite":
        return None
    if if_exists == "refuse":
        state = "is a model already" if trained else "holds an unfinished training"
        raise OutputExistsError(
            f"{model} {state}; give another path, --resume to go on with it, or --overwrite"
        )
    free = _MACHINE if trained else _END | (_REMEDIES if read_failure(model) else set())
    free = {*free, TOLD}
    before = {key: value for key, value in recorded_run(model).items() if key not in free}
    now = {key: value for key, value in run.items() if key not in free}
    if differing := differences(before, now):
        raise ResumeError(
            f"{model} was trained in another way ({differing}); resume with the same stores and "
            f"parameters{_remedy(before, now)}, or start again with --overwrite"
        )
    return "model" if trained else "checkpoint"


def _remedy(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("precision") in (None, now.get("precision")):
        return ""
    return f" (auto is what the device has: give --precision {before['precision']})"


@contextmanager
def alone(
    model: Path, if_exists: IfExists, run: dict[str, Any], found: Found, team: Team
) -> Iterator[None]:
    """Keep others from training the same model meanwhile.

    Parameters
    ----------
    model : Path
        Its folder is made.
    if_exists : {"refuse", "resume", "overwrite"}
    run : dict
    found : {"model", "checkpoint"} or None
        What `find` told.
    team : Team
        The first of its processes holds the lock.

    Raises
    ------
    BusyError
        When another process trains it, or has done so since `found`.
    OutputPathError
        When the folder can't be made, or its file system has no locks.
    """
    with ExitStack() as held:
        team.first(partial(_take, held, model))
        if team.first(partial(find, model, if_exists, run)) != found:
            raise BusyError(
                f"{model} has just been begun or finished by another process; look at it, and give "
                "the command again"
            )
        yield


def _take(held: ExitStack, model: Path) -> None:
    make_folder(model)
    busy = f"{model} is being trained by another process; wait for it or stop it"
    held.enter_context(passing_lock(model / _LOCK, model, busy))


def begin(
    model: Path, objective: Objective, run: dict[str, Any], is_begun: bool, team: Team
) -> Progress:
    """Return where training starts or goes on, with a checkpoint of it in the folder.

    Parameters
    ----------
    model : Path
        A folder; cleared of what an earlier training left, unless it is gone on with.
    objective : Objective
        Put into the state of the checkpoint, if there is one.
    run : dict
    is_begun : bool
        Whether `find` found a checkpoint.
    team : Team
    """
    if is_begun:
        start = _go_on(model, objective, run, team)
        team.reporter.say(f"going on from iteration {start.iterations}")
        return start
    start = Progress(iterations=0, seconds=0.0, run=run)
    if team.is_first:
        clear(model)
        # From the first moment on the folder is known as an unfinished training.
        save_checkpoint(model, objective, start)
    return start


def clear(model: Path) -> None:
    """Remove what an earlier training left in a folder."""
    (model / DESCRIPTION).unlink(missing_ok=True)
    remove_checkpoints(model)
    remove_records(model)


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


@contextmanager
def going_back(model: Path, team: Team) -> Iterator[None]:
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


def recorded_run(model: Path) -> dict[str, Any]:
    """Return what a training that has begun in a folder is known by."""
    trained = (model / DESCRIPTION).is_file()
    return read_run(model) if trained else read_progress(model).run


def _begun_from(init: Path | None, model: Path) -> dict[str, str] | None:
    """Return what the run is known by of the model that it starts from."""
    if init is None:
        return None
    if init.resolve() == model.resolve():
        raise InputError(
            f"init is {init}, which is also the model to be trained; give the new one another path"
        )
    path = str(init.resolve())
    if not init.exists() and is_begun(model):
        # A checkpoint has all its weights, so that the folder may be gone.
        known: dict[str, str] | None = recorded_run(model).get("init")
        if known and known["path"] == path:
            return known
    return {"path": path, "sha256": read_description(init).weights_sha256}


def _psf(settings: TrainSettings) -> dict[str, Any]:
    """Return what the run is known by of a PSF that is a file."""
    if not isinstance(settings, RichardsonLucySettings) or settings.psf is None:
        return {}
    with reading(settings.psf), settings.psf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return {"psf": {"path": str(settings.psf.resolve()), "sha256": found}}


def _identity(store: Path) -> dict[str, Any]:
    attributes = Volume(store).attributes
    return {"path": str(store.resolve()), "id": attributes.id if attributes else None}
