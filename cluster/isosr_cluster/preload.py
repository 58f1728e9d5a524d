"""Preloaded by workers of a local cluster: signals are for the driver, which ends them."""

from __future__ import annotations

import logging
import signal
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Ignore what a terminal or a scheduler sends to all processes: Ctrl-C, SIGTERM and SIGHUP.

    Errors of tasks reach the driver, which names the region: no second report in the worker's log.
    """
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
