"""Train in a SLURM job, that queues again when its walltime ends, and show what it logs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.following import follow
from isosr_cluster.slurm.limits import refuse_too_long
from isosr_cluster.slurm.scripts import Driver, driver_script, log_of, python_of
from isosr_cluster.slurm.site import Site, Workers
from isosr_models.checkpoint import CHECKPOINT
from isosr_models.model_folder import DESCRIPTION, write_durably
from isosr_pipeline.clusters import LOGS, tag_of
from isosr_pipeline.errors import (
    BusyError,
    InputError,
    InterruptedRunError,
    OutputExistsError,
    WorkFailedError,
)
from isosr_pipeline.interrupts import noticing_hangup, stop_requests
from isosr_pipeline.progress import Reporter
from isosr_pipeline.settings import IfExists
from isosr_pipeline.site_files import kind_for
from isosr_pipeline.training.resuming import is_begun, is_trained
from isosr_pipeline.training.settings import TrainSettings

_NAME = "isosr-train"
_OVERWRITE = """\
checkpoint=$1 description=$2
shift 2
if [ "$checkpoint" -nt "$0" ] || [ "$description" -nt "$0" ]; then exec "$@" --resume; fi
exec "$@" --overwrite
"""
_LOG = "train-%j.log"
_SECONDS_TO_END = 300.0
_SECONDS_BETWEEN_LOOKS = 1.0


def train_in_job(
    stores: Sequence[Path],
    model: Path,
    settings: TrainSettings,
    site: Site,
    reporter: Reporter,
    *,
    if_exists: IfExists = "refuse",
    logs: Path | None = None,
    tag: str | None = None,
) -> None:
    """Train a model in a job like those of a site's workers, and wait for its end.

    A job that trains it already, as one of a command whose terminal was lost, is waited for in
    place of another. There is none for a model that is trained.

    Parameters
    ----------
    stores : sequence of Path
        Complete volumes of one microscope.
    model : Path
        Folder to write.
    settings : TrainSettings
    site : Site
        The job is like those of its GPU workers; without a GPU where none are described, or
        `settings` ask for the CPU.
    reporter : Reporter
        Shown what the job logs.
    if_exists : {"refuse", "resume", "overwrite"}
    logs : Path or None
        Folder for the log; None: one here.
    tag : str or None
        What the comment of the job begins with; None: what belongs to `model`.

    Raises
    ------
    InputError
        When the site has no jobs that could do it.
    OutputExistsError
        When `model` exists and may not be overwritten or resumed.
    ResumeError
        When there is a model of another run.
    BusyError
        When a job trains it already, and can't be waited for from here.
    SlurmError
        When SLURM would not take the job, or never begin it.
    WorkFailedError
        When the job has failed; its log was shown.
    InterruptedRunError
        After Ctrl-C or SIGTERM, which cancel the job; when the terminal closes, which doesn't.
    """
    if if_exists == "refuse" and is_begun(model):
        raise OutputExistsError(
            f"{model} exists; give another path, --resume to go on with it, or --overwrite"
        )
    if if_exists == "resume" and is_trained(stores, model, settings):
        reporter.say(f"{model} is trained already")
        return
    folder = (logs or Path(LOGS)).absolute()
    # Not as that of a chain, of which only so many may be in flight.
    comment = f"{tag or tag_of(model).replace(':', '-model:', 1)}:train"
    found = _live(comment)
    if found is not None:
        _check_followed(found, model, folder, if_exists)
        reporter.say(f"job {found.id} trains {model} already, and is waited for")
        _follow(lambda: found.id, folder, reporter)
        return
    script = _prepared(stores, model, settings, site, folder, comment, if_exists)
    _follow(partial(commands.submit, script), folder, reporter)


def _prepared(
    stores: Sequence[Path],
    model: Path,
    settings: TrainSettings,
    site: Site,
    folder: Path,
    comment: str,
    if_exists: IfExists,
) -> str:
    """Write what a job reads into the folder of logs, and return its script."""
    resources = training_resources(settings, site)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    parameters = folder / f"train-{stamp}.yaml"
    script = driver_script(
        site,
        Driver(
            name=_NAME,
            comment=comment,
            resources=resources,
            command=training_command(stores, model, parameters, site, if_exists),
            folder=Path.cwd(),
            log=folder / _LOG,
        ),
    )
    commands.check(script)
    refuse_too_long(site, kind_for(settings.device, site), resources)
    folder.mkdir(parents=True, exist_ok=True)
    known = settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    known["device"] = "cuda" if resources.gpus else "cpu"
    write_durably(parameters, json.dumps(known, indent=2).encode())
    return script


def _live(comment: str) -> Job | None:
    """Return the job that waits or runs under a comment."""
    found = (job for job in commands.find_jobs().values() if job.comment == comment)
    return next((job for job in found if not job.ended), None)


def _check_followed(job: Job, model: Path, folder: Path, if_exists: IfExists) -> None:
    """Refuse to wait for a job that does something else than was asked for, or logs elsewhere."""
    if if_exists == "overwrite":
        raise BusyError(
            f"{model} is being trained by job {job.id}; cancel it before you overwrite the model "
            f"(scancel {job.id}), or go on with it by --resume"
        )
    log = log_of(job.id, folder / _LOG)
    if job.state == "RUNNING" and not log.exists():
        raise BusyError(
            f"{model} is being trained by job {job.id}, whose log is not {log}; wait for it, or "
            "give the command in the folder where it was given first"
        )


def _follow(submit: Callable[[], int], folder: Path, reporter: Reporter) -> None:
    """Wait for the end of a job, also where that is cancelled from here."""
    with stop_requests() as stopping, noticing_hangup() as is_lost:
        number = submit()
        log = log_of(number, folder / _LOG)
        reporter.say(f"training is job {number}; its log is {log}")
        ending = follow(number, log, reporter.say, stopping, is_lost)
        if ending is None and is_lost():
            raise InterruptedRunError(
                f"the terminal is gone, and job {number} trains on: give the command again with "
                "--resume to wait for it (run does so by itself), or end it by scancel"
            )
        if ending is None:
            _wait_for_end(number, reporter)
    _require_success(number, ending, log)


def _wait_for_end(number: int, reporter: Reporter) -> None:
    """Wait until a cancelled job has saved its checkpoint, and nobody writes it any more."""
    reporter.say(f"job {number} is cancelled, and ends once it has saved a checkpoint")
    until = time.monotonic() + _SECONDS_TO_END
    while (job := commands.find_jobs([number]).get(number)) is not None and not job.ended:
        if time.monotonic() >= until:
            raise SlurmError(
                f"job {number} has not ended {_SECONDS_TO_END:g} s after it was cancelled; look "
                "with squeue before you go on"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def training_resources(settings: TrainSettings, site: Site, key: str = "device") -> Workers:
    """Return what a job of a site asks for in which a training can be done.

    Parameters
    ----------
    settings : TrainSettings
    site : Site
    key : str
        What the device was given by, for the message.

    Raises
    ------
    InputError
        When the site has no such jobs, or not enough GPUs in one.
    """
    kind = kind_for(settings.device, site, key)
    found = site.gpu if kind == "gpu" else site.cpu
    if found is None:
        raise AssertionError("a kind that a site has")
    if kind == "gpu" and settings.devices > found.gpus:
        raise InputError(
            f"devices is {settings.devices}, and a job of the site has {found.gpus} GPUs; give "
            "fewer devices, or more GPUs to a job"
        )
    return found


def training_command(
    stores: Sequence[Path], model: Path, parameters: Path, site: Site, if_exists: IfExists
) -> list[str]:
    """Return what a job of training runs; where it was queued again, it goes on.

    What is to be overwritten is older than the parameters. What is younger was begun by this job:
    that it was queued again does not tell, for SLURM may do so before anything was begun.

    Parameters
    ----------
    stores : sequence of Path
    model : Path
    parameters : Path
        A file that is written when the job is submitted.
    site : Site
    if_exists : {"refuse", "resume", "overwrite"}
    """
    paths = [str(path.absolute()) for path in (*stores, model)]
    command = [python_of(site), "-m", "isosr_pipeline", "train", *paths]
    command += ["--parameters", str(parameters)]
    if if_exists != "overwrite":
        return [*command, "--resume"]
    files = [str(model.absolute() / name) for name in (CHECKPOINT, DESCRIPTION)]
    return ["sh", "-c", _OVERWRITE, str(parameters), *files, *command]


def _require_success(number: int, ending: str | None, log: Path) -> None:
    if ending is None:
        raise InterruptedRunError(
            f"interrupted, and job {number} is cancelled; its last checkpoint is kept: go on with "
            "--resume"
        )
    code = ending.partition(" ")[0]
    if code == "0":
        return
    if code == "75":
        raise InterruptedRunError(
            f"job {number} was interrupted; its last checkpoint is kept: go on with --resume"
        )
    raise WorkFailedError(f"job {number}, which trains, has failed ({ending}); its log is {log}")
