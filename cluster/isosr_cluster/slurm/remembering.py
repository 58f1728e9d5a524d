"""Preloaded by the nannies of a job: a worker that is started anew knows how long tasks take."""

from __future__ import annotations

import os
from typing import Any

from isosr_cluster.draining import LONGEST


def dask_setup(nanny: Any) -> None:
    """Give the processes of a nanny a place to keep their measurements.

    It is memory of the nanny's own: nothing is left of it on any disk, however the job ends.

    Parameters
    ----------
    nanny : distributed.Nanny
        Before it starts its first process.
    """
    memory = os.memfd_create("isosr-longest")
    nanny.env[LONGEST] = f"/proc/{os.getpid()}/fd/{memory}"
