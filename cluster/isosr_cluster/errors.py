"""Errors of the clusters: a base class of the project's, mixed with the builtin."""

from __future__ import annotations


class ClusterError(Exception):
    """Base class of what can be wrong with a cluster."""


class ClusterConfigError(ClusterError, ValueError):
    """The description of a cluster is not one that can be used."""


class ClusterUnreachableError(ClusterError, ConnectionError):
    """No scheduler answers at the given address."""


class ClusterLostError(ClusterError, ConnectionError):
    """The cluster went away while it was working."""


class TaskTimeoutError(ClusterError, RuntimeError):
    """A task ran longer than tasks may."""


class NotDoneError(ClusterError, RuntimeError):
    """The task of an item ended before it was done; it is to be given to another one."""


class WorkerDiedError(ClusterError, RuntimeError):
    """The worker process died while it ran a task, each time that it was tried."""


class SlurmError(ClusterError, RuntimeError):
    """SLURM refuses what it is asked, or does not answer."""


class SlurmBusyError(SlurmError):
    """SLURM can't do it now, and may later: it does not answer, or a limit is reached."""


class WorkersLostError(ClusterError, RuntimeError):
    """Jobs of workers end again and again before they have done anything."""
