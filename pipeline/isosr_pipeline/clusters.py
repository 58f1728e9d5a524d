"""Where the work of a step runs: this machine, a Dask scheduler, or the jobs of a SLURM site."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from isosr_cluster.clients import LOCAL, OpenClient, open_client
from isosr_cluster.gpus import find_gpus
from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import Device
from isosr_pipeline.site_files import is_site_file, kind_for, read_site

TASKS_AT_ONCE = 2
"""In a worker: while one is at the device, the other reads, decodes, encodes or writes."""

LOGS = "isosr-logs"
"""Folder for the logs of jobs, where none is given."""


def cluster_for(
    device: Device,
    cluster: str,
    workers: int | None,
    *,
    tasks: int = TASKS_AT_ONCE,
    logs: Path | None = None,
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
    say : callable
        Told of what happens to a site's jobs.

    Raises
    ------
    InputError
        When there are not as many GPUs as workers, or none; when the site file is not valid.
    """
    if is_site_file(cluster):
        return _on_site(device, Path(cluster), workers, tasks, logs or Path(LOGS), say)
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
    say: Callable[[str], None],
) -> OpenClient:
    # Imported here, as it takes a while and only few need it.
    from isosr_cluster.slurm.scripts import JOBS
    from isosr_cluster.slurm.workers import open_slurm

    site = read_site(path)
    # In the job of a chain's driver: so its workers are known as those of the same brain.
    chain = os.environ.get(JOBS)
    driver = os.environ.get("SLURM_JOB_NAME", "isosr") if chain else "isosr"
    return partial(
        open_slurm,
        site,
        kind_for(device, site),
        workers,
        threads_per_worker=tasks,
        name=f"{driver}-workers",
        comment=f"{chain or 'isosr'}:worker",
        logs=logs,
        say=say,
    )
