"""The record of a chain, ``jobs.json``: which jobs were submitted for which steps of a brain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from isosr_models.model_folder import write_durably
from isosr_pipeline.batch.freezing import JOBS_FOLDER
from isosr_pipeline.errors import InputError
from isosr_pipeline.locking import lock
from isosr_pipeline.paths import make_folder

RECORD = "jobs.json"
LOGS_FOLDER = "logs"
_LOCK = "lock"


class _Recorded(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobRecord(_Recorded):
    """A job of a step.

    Attributes
    ----------
    step : str
    id : int
    name : str
    log : Path
    script : Path
    submitted : datetime
    """

    step: str
    id: int
    name: str
    log: Path
    script: Path
    submitted: datetime


class ChainRecord(_Recorded):
    """What was submitted for a brain, the latest job of each step.

    Attributes
    ----------
    format : int
        Version of what the file holds.
    brain : str
        Its name.
    site : str
        The file that describes it.
    submitted : datetime
        When the chain was last submitted.
    workers : int or None
        Worker processes that were asked for; None: as the site says.
    index : Path or None
        The page that lists the brain; None: there is none.
    jobs : tuple of JobRecord
    """

    format: Literal[1] = 1
    brain: str
    site: str
    submitted: datetime
    workers: int | None = None
    index: Path | None = None
    jobs: tuple[JobRecord, ...] = ()

    def job(self, step: str) -> JobRecord | None:
        """Return the job of a step; None if there is none."""
        return next((job for job in self.jobs if job.step == step), None)

    def with_job(self, job: JobRecord) -> ChainRecord:
        """Return the record with a job in place of the earlier one of its step."""
        others = tuple(other for other in self.jobs if other.step != job.step)
        return self.model_copy(update={"jobs": (*others, job)})


def read_record(output: Path) -> ChainRecord | None:
    """Read the record of a brain's chain; None where none was submitted.

    Parameters
    ----------
    output : Path
        The brain's folder of results.

    Raises
    ------
    InputError
        When it is damaged, or of another version.
    """
    path = output / RECORD
    try:
        return ChainRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged or of another version of isosr-pipeline ({error.error_count()} "
            "errors); once none of the brain's jobs is left in squeue, remove it"
        ) from error


def write_record(output: Path, record: ChainRecord) -> None:
    """Write the record of a chain, so that it is there whole or as it was before.

    Parameters
    ----------
    output : Path
    record : ChainRecord
    """
    write_durably(output / RECORD, f"{record.model_dump_json(indent=2)}\n".encode())


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep others from submitting or ending the chain of a brain; make its folders.

    Parameters
    ----------
    output : Path

    Raises
    ------
    BusyError
        When somebody else does so now.
    OutputPathError
        When the folders can't be made, or their file system has no locks.
    """
    for folder in (output, output / JOBS_FOLDER, output / LOGS_FOLDER):
        make_folder(folder)
    with (output / JOBS_FOLDER / _LOCK).open("ab") as file:
        lock(
            file,
            output,
            f"{output}: another process submits or ends the jobs of this brain now; wait for it, "
            "then ask for the status",
        )
        yield
