"""Walltimes that are longer than SLURM allows: such jobs are taken, and never begin."""

from __future__ import annotations

import re
from collections.abc import Iterable

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.site import Resources, Site, walltime_text

_ELSEWHERE = re.compile(r"-[pq].*|--(?:partition|qos)(?:=.*)?")


def too_long(site: Site, section: str, job: Resources) -> str | None:
    """Say whether jobs ask for more time than their partition allows; None where they don't.

    Where jobs name a QOS it is not known, as that may allow more than the partition does.

    Parameters
    ----------
    site : Site
    section : str
        Of the site file, for the message.
    job : Resources
        What jobs of it ask for.

    Raises
    ------
    SlurmError
        When SLURM does not answer, or there is no such partition.
    """
    if job.qos or _go_elsewhere([*site.directives, *job.directives]):
        return None
    limit = commands.time_limit(job.partition)
    if limit is None or job.walltime <= limit:
        return None
    return (
        f"{section}.walltime is {walltime_text(job.walltime)}, and the partition allows "
        f"{walltime_text(limit)}: such jobs would wait for ever; give less"
    )


def refuse_too_long(site: Site, section: str, job: Resources) -> None:
    """Refuse jobs that ask for more time than their partition allows.

    Parameters
    ----------
    site : Site
    section : str
        Of the site file, for the message.
    job : Resources
        What jobs of it ask for.

    Raises
    ------
    SlurmError
        With the limit; or when SLURM does not answer.
    """
    if (problem := too_long(site, section, job)) is not None:
        raise SlurmError(problem)


def _go_elsewhere(directives: Iterable[str]) -> bool:
    """Tell whether options name a partition or a QOS that the site file's keys don't."""
    return any(_ELSEWHERE.fullmatch(word) for line in directives for word in line.split())
