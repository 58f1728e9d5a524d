"""Where the work of a step runs: this machine, a Dask scheduler, or the jobs of a SLURM site."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from distributed import Client

from isosr_cluster.clients import LOCAL, OpenClient, open_client
from isosr_cluster.gpus import find_gpus
from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import Device
from isosr_pipeline.site_files import is_site_file, kind_for, read_site

TASKS_AT_ONCE = 2
"""In a worker: while one is at the device, the other reads, decodes, encodes or writes."""

LOGS = "isosr-logs"
"""Folder for the logs of jobs, where none is given."""


def tag_of(output: Path) -> str:
    """Return what the comments of all jobs begin with that are for one folder of results.

    Parameters
    ----------
    output : Path
    """
    return f"isosr:{hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]}"


def cluster_for(
    device: Device,
    cluster: str,
    workers: int | None,
    *,
    tasks: int = TASKS_AT_ONCE,
    logs: Path | None = None,
    tag: str = "isosr",
    say: Callable[[str], None] = lambda _: None,
) -> OpenClient:
    """Return how to connect to a cluster for work on a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    cluster : str
        ``"local"``, the address of a scheduler, or a site file.
    workers : int or None
        Processes on this machine or of the site. None: one a GPU, or one a core; as the site says.
    tasks : int
        That run in each process at a time.
    logs : Path or None
        Where the logs of a site's jobs go; None: a folder here.
    tag : str
        What the comments of a site's jobs begin with, where this is not the job of a chain's
        driver, which has been told.
    say : callable
        Told of what happens to a site's jobs.

    Raises
    ------
    InputError
        When there are not as many GPUs as workers, or none; when the site file is not valid.
    """
    if is_site_file(cluster):
        return _on_site(device, Path(cluster), workers, tasks, logs or Path(LOGS), tag, say)
    if cluster != LOCAL:
        return partial(open_client, cluster, workers)
    gpus = _gpus(device)
    if gpus is not None and workers is not None:
        if workers > len(gpus):
            raise InputError(
                f"workers is {workers}, and each takes a GPU, of which this machine has "
                f"{len(gpus)}; give fewer --workers, or leave it out"
            )
        gpus = gpus[:workers]
    return partial(open_client, cluster, workers, threads_per_worker=tasks, gpus=gpus)


def _gpus(device: Device) -> list[str] | None:
    if device == "cpu":
        return None
    # Imported here, as convert must not wait for PyTorch.
    from isosr_pipeline.devices import choose_device

    return find_gpus() if choose_device(device).type == "cuda" else None


def _on_site(
    device: Device,
    path: Path,
    workers: int | None,
    tasks: int,
    logs: Path,
    tag: str,
    say: Callable[[str], None],
) -> OpenClient:
    # Imported here, as it takes a while and only few need it.
    from isosr_cluster.slurm.scripts import JOBS
    from isosr_cluster.slurm.workers import open_slurm

    site = read_site(path)
    # In the job of a chain's driver: so its workers are known as those of the same brain.
    chain = os.environ.get(JOBS)
    name = f"{os.environ.get('SLURM_JOB_NAME', 'isosr') if chain else 'isosr'}-workers"
    comment = f"{chain or tag}:worker"
    opened: OpenClient = partial(
        open_slurm,
        site,
        kind_for(device, site),
        workers,
        threads_per_worker=tasks,
        name=name,
        comment=comment,
        logs=logs,
        say=say,
    )
    return partial(_after_a_killed_driver, opened, name, comment, logs, say) if chain else opened


@contextmanager
def _after_a_killed_driver(
    opened: OpenClient, name: str, comment: str, logs: Path, say: Callable[[str], None]
) -> Iterator[Client]:
    """Connect once what an earlier run of this driver could not end is gone.

    Whoever is killed leaves jobs that nobody would give work to, and keys in the folder of logs.
    """
    from isosr_cluster.slurm import commands
    from isosr_cluster.slurm.credentials import remove_left

    live = [job for job in commands.find_jobs().values() if not job.ended]
    workers = [job for job in live if job.comment == comment]
    left = [job.id for job in workers if job.name == name]
    if left:
        commands.cancel(left)
        say(f"cancelled {len(left)} jobs of workers that an earlier run has left")
    # Workers by another name are those of somebody who works on this brain now.
    if len(left) == len(workers):
        remove_left(logs)
    with opened() as client:
        yield client
