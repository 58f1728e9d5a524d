"""The jobs that Dask workers run in: what they ask SLURM for, and how their processes begin."""

from __future__ import annotations

import asyncio
import copy
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dask_jobqueue.slurm import SLURMJob
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface
from distributed.security import Security

from isosr_cluster.draining import ENDS_AT
from isosr_cluster.environment import MALLOC, SCRATCH, threads_of
from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.logs import output_option
from isosr_cluster.slurm.site import Site, Workers

_SECONDS_WITHOUT_DRIVER = 60
"""A worker whose driver is gone leaves after this time, so that no job idles on."""

_REMEMBERING = "isosr_cluster.slurm.remembering"
_PINNING = "isosr_cluster.slurm.pinning"


class WorkerJob(SLURMJob):  # type: ignore[misc] # dask-jobqueue is untyped
    """A job of workers.

    Attributes
    ----------
    number : int or None
        SLURM's, once it has taken the job.
    problem : SlurmError or None
        Why it did not.
    """

    def __init__(self, *args: Any, directives: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **{**options, "security": _quoted(options.get("security"))})
        self.job_header = "\n".join(f"#SBATCH {directive}" for directive in directives)
        self.number: int | None = None
        self.problem: SlurmError | None = None

    async def start(self) -> None:
        """Submit the job; where SLURM does not take it, that is its problem."""
        try:
            self.number = await asyncio.to_thread(commands.submit, self.job_script())
        except SlurmError as error:
            self.problem = error
        await ProcessInterface.start(self)

    async def close(self) -> None:
        """Cancel the job, if it was submitted and has not been given up."""
        number = self.give_up()
        if number is not None:
            try:
                await asyncio.to_thread(commands.cancel, [number])
            except SlurmError as error:
                self.problem = error
        await ProcessInterface.close(self)

    def give_up(self) -> int | None:
        """Forget the number of the job, which has ended or will be cancelled; return it."""
        number, self.number = self.number, None
        self.status = Status.closed
        return number


def _quoted(security: Security | None) -> Security | None:
    """Return credentials with their paths as a shell writes them: they become its arguments."""
    if security is None:
        return None
    quoted = copy.copy(security)
    for name in ("tls_ca_file", "tls_worker_key", "tls_worker_cert"):
        setattr(quoted, name, shlex.quote(getattr(security, name)))
    return quoted


def job_options(
    site: Site, jobs: Workers, threads: int, name: str, comment: str, logs: Path
) -> dict[str, Any]:
    """Return the options of a `SLURMCluster` whose jobs are those of a site.

    Parameters
    ----------
    site : Site
    jobs : Workers
        Those of the site that are meant.
    threads : int
        Tasks that run in each process at a time.
    name, comment : str
        Of the jobs.
    logs : Path
        Folder that all nodes see; there when jobs are submitted.
    """
    pinned = jobs.gpus and jobs.per_job > 1
    # A dashboard would be open to everyone on the network.
    further = ["--no-dashboard", "--preload-nanny", _REMEMBERING]
    further += ["--preload-nanny", _PINNING] if pinned else []
    return {
        # To Dask, cores are tasks at a time; what SLURM is asked for stands in the directives.
        "cores": threads * jobs.per_job,
        "processes": jobs.per_job,
        "memory": f"{jobs.memory}B",
        "interface": site.interface,
        "local_directory": f'"${SCRATCH}"' if site.scratch else None,
        "death_timeout": _SECONDS_WITHOUT_DRIVER,
        "worker_extra_args": further,
        "job_script_prologue": list(_prologue(site, jobs)),
        "directives": list(_directives(site, jobs, name, comment, logs)),
        "python": site.python or shlex.quote(sys.executable),
        "shebang": "#!/usr/bin/env bash",
        "job_name": name,
    }


def script_of(directives: Iterable[str]) -> str:
    """Return a script that asks for what jobs will ask for, and does nothing.

    Parameters
    ----------
    directives : iterable of str
    """
    return "\n".join(["#!/bin/sh", *(f"#SBATCH {line}" for line in directives), "true", ""])


def log_of(logs: Path, name: str, number: int | str) -> Path:
    """Return the file that the job of workers writes to.

    Parameters
    ----------
    logs : Path
    name : str
        Of the job.
    number : int or str
        Of the job, or SLURM's word for it.
    """
    return logs / f"{name}-{number}.log"


def _directives(site: Site, jobs: Workers, name: str, comment: str, logs: Path) -> Iterator[str]:
    yield f"--job-name={name}"
    yield f"--comment={comment}"
    yield output_option(log_of(logs, name, "%j"))
    # Where SLURM takes one back, another takes its place: one that came again would be too many.
    yield "--no-requeue"
    yield from site.options(jobs)


def _prologue(site: Site, jobs: Workers) -> Iterator[str]:
    # SLURM knows best, where it says so: it may have given less than was asked for.
    yield f"export {ENDS_AT}=${{SLURM_JOB_END_TIME:-$(( $(date +%s) + {jobs.walltime} ))}}"
    variables = {**MALLOC, **threads_of(max(1, jobs.cores // jobs.per_job))}
    yield from (f"export {name}={value}" for name, value in variables.items())
    # A worker that was paused for its memory would stay so.
    yield "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False"
    yield from site.setup
    if site.scratch:
        # The shell of the job expands variables in it.
        yield f'export {SCRATCH}="{site.scratch}"'
        wrong = f"scratch ${SCRATCH} can't be made or written to on $(hostname); mend the site file"
        usable = f'mkdir -p "${SCRATCH}" && [ -w "${SCRATCH}" ]'
        yield f'{usable} || {{ echo "{wrong}" >&2; exit 1; }}'
