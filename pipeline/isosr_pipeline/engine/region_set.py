"""Sets of regions that stay small when there are millions of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet

_BYTES_AT_LEAST = 1024


class RegionSet(MutableSet[int]):
    """A set of numbers of regions, a byte for each up to the largest.

    A million take a megabyte, where a set of integers takes sixty.

    Parameters
    ----------
    values : iterable of int
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._marks = bytearray(_BYTES_AT_LEAST)
        self._count = 0
        for value in values:
            self.add(value)

    def add(self, value: int) -> None:
        """Add a number of a region, 0 or more."""
        if value >= len(self._marks):
            self._marks.extend(bytes(max(value + 1 - len(self._marks), len(self._marks))))
        self._count += not self._marks[value]
        self._marks[value] = 1

    def discard(self, value: int) -> None:
        """Take a number out, if it is in."""
        if value in self:
            self._marks[value] = 0
            self._count -= 1

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and 0 <= value < len(self._marks) and self._marks[value] == 1

    def __iter__(self) -> Iterator[int]:
        return (index for index, mark in enumerate(self._marks) if mark)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<{len(self)} regions>"
