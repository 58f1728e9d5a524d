"""Dask clients: a cluster on this machine, or a scheduler that runs already."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from isosr_cluster.asking import workers_of
from isosr_cluster.environment import MALLOC, threads_of
from isosr_cluster.errors import ClusterConfigError, ClusterUnreachableError
from isosr_cluster.keeping import PATIENCE, kept_up
from isosr_cluster.quiet import quiet
from isosr_cluster.tracking import start_tracker

LOCAL = "local"
_SECONDS_FOR_A_WORKER = 30.0

_STARTS = 3
"""How often a cluster is started whose workers die while they start."""

_SECONDS_FOR_ALL_WORKERS = 300.0
"""On a slow file system importing the libraries alone may take a minute."""

OpenClient = Callable[[], AbstractContextManager[Client]]
"""Connects to a cluster when it is needed, after everything has been checked."""

_ADDRESS = re.compile(r"(?:tcp|tls)://(?:\[[^\[\]]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_LARGEST_PORT = 65535
_WORKERS = {
    "distributed.nanny.pre-spawn-environ": MALLOC,
    # So a worker that was paused for its memory would stay so.
    "distributed.worker.memory.pause": False,
    **PATIENCE,
}


class _PinnedCluster(LocalCluster):  # type: ignore[misc] # distributed is untyped
    """A cluster on this machine whose workers each see one GPU."""

    def __init__(self, gpus: Sequence[str], **options: Any) -> None:
        self._gpus = list(gpus)
        super().__init__(n_workers=0, **options)
        self.scale(len(self._gpus))
        try:
            # Here, as workers that don't start would otherwise fail where no one hears of it.
            self.sync(self._correct_state)
        except BaseException:
            self.close()
            raise

    def new_worker_spec(self) -> dict[Any, Any]:
        """Return the next worker, with a GPU of its own."""
        ((name, spec),) = super().new_worker_spec().items()
        options = spec["options"]
        gpu = self._gpus[len(self.worker_spec) % len(self._gpus)]
        env = {**options["env"], "CUDA_VISIBLE_DEVICES": gpu}
        return {name: {**spec, "options": {**options, "env": env}}}


@contextmanager
def open_client(
    cluster: str = LOCAL,
    workers: int | None = None,
    *,
    threads_per_worker: int = 1,
    gpus: Sequence[str] | None = None,
) -> Iterator[Client]:
    """Connect to a cluster, and start it first where it is this machine.

    Parameters
    ----------
    cluster : str
        ``"local"``, or the address of a scheduler, ``"tcp://host:port"``.
    workers : int or None
        Processes on this machine; None: one a core, or one a GPU where `gpus` is given.
    threads_per_worker : int
        Tasks that run in each process of this machine at a time.
    gpus : sequence of str, optional
        GPUs of this machine, as `find_gpus` names them. Each gets a worker process that sees no
        other one.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterConfigError
        When `cluster` is neither, or `workers` makes no sense for it.
    ClusterUnreachableError
        When no scheduler answers, or workers of this machine die again and again as they start.
    """
    if cluster != LOCAL:
        with quiet(), _connect(cluster, workers, gpus) as client:
            yield client
        return
    count = _count(workers, threads_per_worker, gpus)
    # Of the tasks of a process, one computes while others read or write.
    threads = max(1, CPU_COUNT // count)
    options = {
        "threads_per_worker": threads_per_worker,
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.ERROR,
        "memory_limit": MEMORY_LIMIT // count,
        "preload": "isosr_cluster.preload",
        "env": threads_of(threads),
    }
    start_tracker()
    with dask.config.set(_WORKERS):
        started = _started(count, gpus, options)
        with _closing(started), kept_up(started, count), Client(started) as client:
            _wait_for_all(client, count)
            yield client


@contextmanager
def _closing(cluster: LocalCluster) -> Iterator[None]:
    """Close a cluster of this machine in the end, whose work is done by then or has failed."""
    try:
        yield
    finally:
        # On a crowded machine workers may be slow to end. They do so with this process.
        with suppress(TimeoutError):
            cluster.close()


def _started(count: int, gpus: Sequence[str] | None, options: dict[str, Any]) -> LocalCluster:
    """Start a cluster on this machine, and once more where workers die while they start.

    Raises
    ------
    ClusterUnreachableError
        When they do so each time.
    """
    failures: list[Exception] = []
    while len(failures) < _STARTS:
        try:
            if gpus is None:
                return LocalCluster(n_workers=count, **options)
            return _PinnedCluster(gpus, **options)
        except (RuntimeError, OSError) as error:
            failures.append(error)
    cause = failures[-1]
    while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    raise ClusterUnreachableError(
        f"the {count} workers on this machine did not start in {_STARTS} attempts ({cause}): most "
        "often memory runs out as they start; give fewer --workers, or free some memory"
    ) from failures[-1]


def _wait_for_all(client: Client, count: int) -> None:
    try:
        client.wait_for_workers(count, timeout=_SECONDS_FOR_ALL_WORKERS)
    except TimeoutError as error:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        raise ClusterUnreachableError(
            f"{there} of {count} workers on this machine are there after "
            f"{_SECONDS_FOR_ALL_WORKERS:g} s; give fewer --workers, or see what ends them (memory, "
            "or a limit of the job)"
        ) from error


def _count(workers: int | None, threads: int, gpus: Sequence[str] | None) -> int:
    """Return the number of workers on this machine, or refuse what makes no sense."""
    for name, value in (("workers", workers), ("threads_per_worker", threads)):
        if value is not None and value < 1:
            raise ClusterConfigError(f"{name} is {value}: at least one is needed")
    if gpus is None:
        return workers or CPU_COUNT
    if not gpus:
        raise ClusterConfigError(
            "gpus is empty: no worker could be given one; check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or work on the CPU"
        )
    if workers not in (None, len(gpus)):
        raise ClusterConfigError(
            f"workers is {workers}, and each of {len(gpus)} GPUs gets one; leave it out, or give "
            "as many GPUs"
        )
    return len(gpus)


def _connect(cluster: str, workers: int | None, gpus: Sequence[str] | None) -> Client:
    if not _is_address(cluster):
        raise ClusterConfigError(
            f"cluster is {cluster!r}: give {LOCAL!r} or the address of a scheduler, "
            f"tcp://host:port with a port of 1 to {_LARGEST_PORT}"
        )
    if workers is not None:
        raise ClusterConfigError(
            f"workers is {workers}, but the cluster at {cluster} has its own; leave it out"
        )
    if gpus is not None:
        raise ClusterConfigError(
            f"gpus are given, but the workers at {cluster} have their own; leave them out"
        )
    try:
        client = Client(cluster, timeout="10s")
    except (OSError, ValueError) as error:
        raise ClusterUnreachableError(
            f"no scheduler answers at {cluster} ({error}); start one with dask scheduler"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_SECONDS_FOR_A_WORKER)
    except TimeoutError as error:
        client.close()
        raise ClusterUnreachableError(
            f"the scheduler at {cluster} has no workers after {_SECONDS_FOR_A_WORKER:g} s; start "
            f"some with dask worker {cluster}"
        ) from error
    return client


def _is_address(cluster: str) -> bool:
    match = _ADDRESS.fullmatch(cluster)
    return match is not None and 1 <= int(match["port"]) <= _LARGEST_PORT


def memory_per_task(client: Client) -> int:
    """Return the memory in bytes that each task may use on the smallest worker of a cluster."""
    return int(min(limit // tasks for limit, tasks in _workers(client)))


def memory_per_worker(client: Client, *, less_per_task: int = 0) -> int:
    """Return the memory in bytes that the tasks of a worker share, on the smallest of a cluster.

    Parameters
    ----------
    client : distributed.Client
    less_per_task : int
        Bytes that each task needs for itself, which are taken off.
    """
    return int(min(limit - tasks * less_per_task for limit, tasks in _workers(client)))


def tasks_per_worker(client: Client) -> int:
    """Return how many tasks run at a time in a worker of a cluster, at most."""
    return max(tasks for _limit, tasks in _workers(client))


def worker_addresses(client: Client) -> list[str]:
    """Return the addresses of all workers of a cluster."""
    return list(workers_of(client))


def _workers(client: Client) -> list[tuple[int, int]]:
    """Return the memory limit and the number of task threads of each worker."""
    workers = workers_of(client).values()
    # A worker without a limit reports 0: it has what this machine has, for want of better.
    return [(w["memory_limit"] or MEMORY_LIMIT, max(1, w["nthreads"])) for w in workers]
