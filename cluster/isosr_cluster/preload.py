"""Preloaded by workers of a local cluster: signals are for the driver, which ends them."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Ignore Ctrl-C and SIGTERM, which a terminal or a scheduler sends to all processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
