"""A Dask cluster whose workers are SLURM jobs, and whose scheduler is in this process."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue.slurm import SLURMCluster
from distributed import Client
from tornado.ioloop import PeriodicCallback

from isosr_cluster.errors import ClusterConfigError, SlurmBusyError, SlurmError
from isosr_cluster.quiet import quiet
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.credentials import temporary_credentials
from isosr_cluster.slurm.jobs import WorkerJob, job_options, log_of, script_of
from isosr_cluster.slurm.site import Kind, Site, Workers
from isosr_cluster.slurm.topping_up import TopUp

_DASK = {
    # Which jobs have ended is SLURM's to say.
    "distributed.deploy.lost-worker-timeout": "10000 days",
    # Workers that are preempted don't tell against what they did.
    "distributed.scheduler.allowed-failures": 10,
}

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_WAITS = 0.2
SECONDS_BETWEEN_CHECKS = 60.0
_SECONDS_FOR_NODES = 1800.0
"""A chain must not end because all nodes are down for a while when its job begins."""


class _Cluster(SLURMCluster):  # type: ignore[misc] # dask-jobqueue is untyped
    """Gives no name twice: a late word about one job must not be taken for another's."""

    job_cls = WorkerJob
    waits_in_queue = True

    def __init__(self, **options: Any) -> None:
        self._numbers = itertools.count()
        super().__init__(**options)

    def _new_worker_name(self, worker_number: int) -> str:
        return f"worker-{next(self._numbers)}"


@contextmanager
def open_slurm(
    site: Site,
    kind: Kind,
    workers: int | None = None,
    *,
    logs: Path,
    threads_per_worker: int = 1,
    name: str = "isosr-workers",
    comment: str = "isosr",
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Client]:
    """Start a scheduler here and workers in SLURM jobs, and keep as many there as asked for.

    Jobs that end are replaced: lost, expired, cancelled, preempted. All are cancelled at the end.

    Parameters
    ----------
    site : Site
    kind : {"cpu", "gpu"}
        Which of the site's jobs.
    workers : int or None
        Processes; whole jobs are asked for. None: as the site says.
    logs : Path
        Folder for the logs of the jobs, which all nodes see.
    threads_per_worker : int
        Tasks that run in each process at a time.
    name, comment : str
        Of the jobs.
    say : callable
        Told of jobs that end, and of waiting in the queue.

    Yields
    ------
    distributed.Client
        When a first worker is there, however long the queue is.

    Raises
    ------
    ClusterConfigError
        When the site has no such jobs.
    SlurmError
        With SLURM's own message, when it would not take them.
    WorkersLostError
        When jobs end again and again before they have done anything.
    """
    jobs = _of_kind(site, kind)
    count = jobs.jobs_for(workers)
    logs = logs.absolute()
    options = job_options(site, jobs, threads_per_worker, name, comment, logs)
    _check(script_of(options["directives"]), say)
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_DASK))
        stack.enter_context(quiet())
        cluster = stack.enter_context(_started(site, options, logs))
        keeper = TopUp(cluster, count, partial(log_of, logs, name), say)
        try:
            stack.enter_context(_looking(cluster, keeper, count))
            client = stack.enter_context(Client(cluster))
            # Whoever waits for its tasks hears of it so.
            keeper.on_giving_up(client.close)
            say(f"{_counted(count, 'job')} of {_counted(jobs.per_job, 'worker')}; logs in {logs}")
            _wait_for_one(client, keeper)
            yield client
        except Exception as error:
            # Whatever a client that was closed raises, this is why.
            if keeper.problem is not None and error is not keeper.problem:
                raise keeper.problem from error
            raise


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _check(script: str, say: Callable[[str], None]) -> None:
    """Have SLURM tell whether it would take jobs; in a job, nodes that are down are waited for."""
    until = time.monotonic() + (_SECONDS_FOR_NODES if "SLURM_JOB_ID" in os.environ else 0.0)
    while True:
        try:
            return commands.check(script)
        except SlurmBusyError as error:
            if time.monotonic() > until:
                raise
            say(f"waiting for SLURM to take jobs of workers: {error}")
        time.sleep(SECONDS_BETWEEN_CHECKS)


def _of_kind(site: Site, kind: Kind) -> Workers:
    jobs = site.workers(kind)
    if jobs is None:
        raise ClusterConfigError(
            f"the site has no {kind} section, and the work needs such workers; describe them "
            "there, or work on the other device"
        )
    return jobs


@contextmanager
def _started(site: Site, options: dict[str, Any], logs: Path) -> Iterator[_Cluster]:
    with ExitStack() as stack:
        encryption = {}
        if site.encrypted:
            encryption["security"] = stack.enter_context(temporary_credentials(logs))
        try:
            cluster = _Cluster(
                **options,
                **encryption,
                silence_logs=False,
                scheduler_options={"dashboard_address": "127.0.0.1:0", "port": 0},
            )
        except (RuntimeError, ValueError, OSError) as error:
            cause = error.__cause__ or error
            raise ClusterConfigError(
                f"no workers can be led from here ({cause}); see interface in the site file"
            ) from error
        try:
            yield cluster
        finally:
            _cancel_all(cluster)
            cluster.close()


def _cancel_all(cluster: _Cluster) -> None:
    """Cancel all jobs by one command, which SLURM likes better than one for each."""
    cluster.sync(_stop_growing, cluster)
    numbers = [job.give_up() for job in list(cluster.workers.values())]
    with suppress(SlurmError):
        # What can't be told so ends by itself, as its driver is gone.
        commands.cancel([number for number in numbers if number is not None])


async def _stop_growing(cluster: _Cluster) -> None:
    cluster.worker_spec.clear()
    if cluster._correct_state_waiting is not None:
        await cluster._correct_state_waiting


@contextmanager
def _looking(cluster: _Cluster, keeper: TopUp, count: int) -> Iterator[None]:
    callback = PeriodicCallback(keeper.look, 1e3 * _SECONDS_BETWEEN_LOOKS)
    cluster.scale(jobs=count)
    cluster.loop.add_callback(callback.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(callback.stop)


def _wait_for_one(client: Client, keeper: TopUp) -> None:
    while keeper.problem is None and not client.scheduler_info(n_workers=-1)["workers"]:
        time.sleep(_SECONDS_BETWEEN_WAITS)
    if keeper.problem is not None:
        raise keeper.problem
