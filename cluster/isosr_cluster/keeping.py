"""Keeps workers of a cluster on this machine up: Dask gives some up that it should start again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from distributed import SpecCluster
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

PATIENCE = {"distributed.deploy.lost-worker-timeout": "120s"}
"""Dask's configuration. A worker that comes back later than this after its end is given up; on a
busy machine or a slow file system importing PyTorch alone takes longer than Dask's own 15 s."""

_MILLISECONDS_BETWEEN_LOOKS = 5000.0


@contextmanager
def kept_up(cluster: SpecCluster, count: int) -> Iterator[None]:
    """Start workers anew that the cluster has given up.

    Parameters
    ----------
    cluster : distributed.SpecCluster
    count : int
        How many workers there should be.
    """
    looking = PeriodicCallback(partial(_look, cluster, count), _MILLISECONDS_BETWEEN_LOOKS)
    cluster.loop.add_callback(looking.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(looking.stop)


def _look(cluster: SpecCluster, count: int) -> None:
    """Have the cluster start what is missing; runs in its loop."""
    for name, worker in list(cluster.workers.items()):
        # One that died while it was started anew is kept by Dask as if it were there.
        if worker.status in (Status.failed, Status.closed):
            del cluster.workers[name]
    cluster.scale(count)
