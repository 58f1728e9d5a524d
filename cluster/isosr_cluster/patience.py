"""How long to wait for workers: those of a batch system may be in its queue for hours."""

from __future__ import annotations

import math

from distributed import Client


def patience(client: Client, seconds: float) -> float:
    """Return how many seconds to wait for a first worker, or for one to come back.

    Parameters
    ----------
    client : distributed.Client
    seconds : float
        Where workers are started without a queue.
    """
    # What looks after their jobs says itself when none will come.
    return math.inf if getattr(client.cluster, "waits_in_queue", False) else seconds
