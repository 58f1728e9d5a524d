"""Keeps Dask from telling by itself of what becomes an error here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("distributed", "distributed.client", "tornado.application")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask from telling of a lost scheduler with tracebacks: that becomes an error here."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
