"""Preloaded by the nannies of a job with several GPUs: each worker process sees one of them."""

from __future__ import annotations

from typing import Any

from isosr_cluster.gpus import VISIBLE, find_gpus


def dask_setup(nanny: Any) -> None:
    """Give the process of a nanny a GPU of its own, by its place in the job.

    Where the job has fewer GPUs than processes the rest see none, and say so when they are asked
    for one.

    Parameters
    ----------
    nanny : distributed.Nanny
        Before it starts its process; its name ends with its place, as in ``worker-7-0``.
    """
    gpus = find_gpus()
    place = int(str(nanny.name).rpartition("-")[2])
    nanny.env[VISIBLE] = gpus[place] if place < len(gpus) else ""
