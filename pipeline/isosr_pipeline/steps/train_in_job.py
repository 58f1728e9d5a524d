"""Train in a SLURM job, that queues again when its walltime ends, and show what it logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.following import follow
from isosr_cluster.slurm.scripts import Driver, driver_script, log_of, python_of
from isosr_cluster.slurm.site import Site, Workers
from isosr_models.checkpoint import CHECKPOINT
from isosr_models.model_folder import DESCRIPTION, write_durably
from isosr_pipeline.clusters import LOGS
from isosr_pipeline.errors import (
    InputError,
    InterruptedRunError,
    OutputExistsError,
    WorkFailedError,
)
from isosr_pipeline.interrupts import stop_requests
from isosr_pipeline.progress import Reporter
from isosr_pipeline.resuming import is_begun
from isosr_pipeline.settings import IfExists, TrainSettings
from isosr_pipeline.site_files import kind_for

_NAME = "isosr-train"
_OVERWRITE = """\
checkpoint=$1 description=$2
shift 2
if [ "$checkpoint" -nt "$0" ] || [ "$description" -nt "$0" ]; then exec "$@" --resume; fi
exec "$@" --overwrite
"""


def train_in_job(
    stores: Sequence[Path],
    model: Path,
    settings: TrainSettings,
    site: Site,
    reporter: Reporter,
    *,
    if_exists: IfExists = "refuse",
    logs: Path | None = None,
) -> None:
    """Train a model in a job like those of a site's workers, and wait for its end.

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

    Raises
    ------
    InputError
        When the site has no jobs that could do it.
    OutputExistsError
        When `model` exists and may not be overwritten or resumed.
    SlurmError
        When SLURM would not take the job.
    WorkFailedError
        When the job has failed; its log was shown.
    InterruptedRunError
        After Ctrl-C or SIGTERM, which cancel the job.
    """
    if if_exists == "refuse" and is_begun(model):
        raise OutputExistsError(
            f"{model} exists; give another path, --resume to go on with it, or --overwrite"
        )
    resources = training_resources(settings, site)
    folder = (logs or Path(LOGS)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    parameters = folder / f"train-{stamp}.yaml"
    script = driver_script(
        site,
        Driver(
            name=_NAME,
            comment="isosr:train",
            resources=resources,
            command=training_command(stores, model, parameters, site, if_exists),
            folder=Path.cwd(),
            log=folder / "train-%j.log",
        ),
    )
    commands.check(script)
    known = settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    known["device"] = "cuda" if resources.gpus else "cpu"
    write_durably(parameters, json.dumps(known, indent=2).encode())
    with stop_requests() as stopping:
        number = commands.submit(script)
        log = log_of(number, folder / "train-%j.log")
        reporter.say(f"training is job {number}; its log is {log}")
        ending = follow(number, log, reporter.say, stopping)
    _require_success(number, ending, log)


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
