"""Bundles of short items: sent, done and fetched together, as a task costs more than they do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from distributed import Reschedule

Item = TypeVar("Item")
Value = TypeVar("Value")

SECONDS = 0.1
"""What a bundle should take. Longer items are tasks of their own."""

_SECONDS_AT_MOST = 2 * SECONDS
"""After so long nothing more of a bundle is begun: what a worker that dies costs stays small."""

_MOST_ITEMS = 32

_FEWEST_PER_THREAD = 2
"""One that runs and one that waits, so that no worker is idle while the driver thinks."""

_MOST_PER_THREAD = 16
"""Of short tasks, a thread is given what it does between two looks: results come together."""


@dataclass(frozen=True)
class Bundle(Generic[Item]):
    """Items that are one task; an object that Dask does not look into.

    Parameters
    ----------
    items : tuple
        At least one.
    """

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Done(Generic[Value]):
    """What has become of a bundle.

    Parameters
    ----------
    values : list
        Of its first items, at least one. The others were not done.
    failed : bool
        Whether the first of those that were not done has failed.
    seconds : float
        What it took.
    """

    values: list[Value]
    failed: bool
    seconds: float


def do(function: Callable[[Item], Value], bundle: Bundle[Item]) -> Done[Value]:
    """Call a function on one item of a bundle after the other, as long as that goes well.

    Raises
    ------
    Exception
        What the function raises on the first item. That of a later one is not told: it is to be
        called again, in a bundle of its own.
    """
    begun = time.monotonic()
    values: list[Value] = []
    failed = False
    for item in bundle.items:
        if values and time.monotonic() - begun > _SECONDS_AT_MOST:
            break
        try:
            values.append(function(item))
        except Exception as error:
            if not values:
                raise
            failed = not isinstance(error, Reschedule)
            break
    return Done(values, failed, time.monotonic() - begun)


class Pace:
    """How many items make a bundle, and how many a thread is given, by what took how long.

    Attributes
    ----------
    size : int
        Items of a bundle; one until it is known that they are short.
    per_thread : int
        Items for each thread.
    """

    def __init__(self) -> None:
        self.size, self.per_thread = 1, _FEWEST_PER_THREAD
        self._items, self._seconds = 0, 0.0

    def ended(self, items: int, seconds: float) -> None:
        """Tell of a task that has ended."""
        self._items += items
        self._seconds += seconds

    def set(self, threads: int) -> None:
        """Set the pace for what comes next by what has ended since the last time."""
        short = SECONDS * self._items / max(self._seconds, 1e-9)
        self.size = max(1, min(math.floor(short), _MOST_ITEMS))
        fewest = _FEWEST_PER_THREAD * self.size
        ended = round(self._items / threads)
        self.per_thread = min(max(fewest, ended), max(fewest, _MOST_PER_THREAD))
        self._items, self._seconds = 0, 0.0
