"""Variables of the environment that worker processes begin with."""

from __future__ import annotations

SCRATCH = "ISOSR_SCRATCH"
"""Folder of the node for what is temporary, where the site names one."""

MALLOC = {
    # glibc keeps what a region needed for the next one: the system's fresh pages, cleared one by
    # one, took as long as compression. Not more, for a network's activations come in many sizes.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 26),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
}

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ZARR_THREADING__MAX_WORKERS",
)


def threads_of(count: int) -> dict[str, str]:
    """Return the variables that have a process compute in so many threads.

    Parameters
    ----------
    count : int
    """
    return dict.fromkeys(_THREADS, str(count))
