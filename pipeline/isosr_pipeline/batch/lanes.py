"""Lanes: at most so many chains in flight, each new one behind an earlier one in its lane."""

from __future__ import annotations

from collections.abc import Sequence


class Lanes:
    """What the next chain must wait for, so that no more than so many are in flight at a time.

    Each lane has one chain at a time. Where more chains are in flight than there are lanes, some
    have several, all of which end before the next begins.

    Parameters
    ----------
    most : int or None
        Chains in flight at any time; None: as many as there are.
    ends : sequence of str
        The last job of each chain that is in flight, in the order in which they were submitted.
    """

    def __init__(self, most: int | None, ends: Sequence[str]) -> None:
        self._lanes = [list(ends[start::most]) for start in range(most)] if most else []
        self._next = len(ends)

    @property
    def before(self) -> list[str]:
        """The last jobs of the chains that the next one waits for."""
        return self._lanes[self._next % len(self._lanes)] if self._lanes else []

    def add(self, end: str) -> None:
        """Take note of the last job of the next chain."""
        if self._lanes:
            self._lanes[self._next % len(self._lanes)] = [end]
        self._next += 1

    def extend(self, old: str, end: str) -> None:
        """Take note that a chain in flight now ends with another job."""
        self._lanes = [[end if job == old else job for job in lane] for lane in self._lanes]
