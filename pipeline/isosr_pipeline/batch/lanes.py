"""Lanes: at most so many chains in flight, each new one behind all earlier ones in its lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class InFlight(NamedTuple):
    """A chain that waits or runs.

    Attributes
    ----------
    end : str
        Its last job.
    after : frozenset of str
        The last jobs of the chains that it still waits for.
    """

    end: str
    after: frozenset[str]


class Lanes:
    """What the next chain must wait for, so that no more than so many are in flight at a time.

    Each lane has one chain at a time: a chain waits for all that are in its lane, not only for the
    one before it, as that may be cancelled while an earlier one runs. Of chains that are in flight
    already, a lane has those that wait for each other. Where that makes more lanes than there may
    be, new chains wait for the end of all that are too many.

    Parameters
    ----------
    most : int or None
        Chains in flight at any time; None: as many as there are.
    chains : sequence of InFlight
        Those in flight, in the order in which they were submitted.
    """

    def __init__(self, most: int | None, chains: Sequence[InFlight]) -> None:
        self._lanes: list[list[str]] = []
        self._surplus: list[str] = []
        if most is None:
            return
        for chain in chains:
            behind = [lane for lane in self._lanes if chain.after.issuperset(lane)]
            if behind:
                max(behind, key=len).append(chain.end)
            else:
                self._lanes.append([chain.end])
        too_many = max(0, len(self._lanes) - most)
        self._surplus = [end for lane in self._lanes[:too_many] for end in lane]
        self._lanes = self._lanes[too_many:]
        self._lanes += [[] for _ in range(most - len(self._lanes))]

    @property
    def before(self) -> list[str]:
        """The last jobs of the chains that the next one waits for."""
        return [*self._surplus, *self._shortest] if self._lanes else []

    def add(self, end: str) -> None:
        """Take note of the last job of the next chain."""
        if self._lanes:
            self._shortest.append(end)

    def extend(self, old: str, end: str) -> None:
        """Take note that a chain in flight now ends with another job."""
        self._lanes = [[end if job == old else job for job in lane] for lane in self._lanes]
        self._surplus = [end if job == old else job for job in self._surplus]

    @property
    def _shortest(self) -> list[str]:
        return min(self._lanes, key=len)
