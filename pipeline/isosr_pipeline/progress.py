"""Progress: a bar on a terminal, plain lines with a rate and an ETA elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int, str], None]
"""Called with how many more units are done, and a short remark such as a rate or a loss."""

_SECONDS_BETWEEN_LINES = 10.0
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


class Reporter(Protocol):
    """Where the progress of steps is shown."""

    def task(
        self, label: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Begin a task of `total` units, `done` of which are done already."""
        ...

    def say(self, line: str) -> None:
        """Show one line."""
        ...


class SilentReporter:
    """Shows nothing."""

    def task(
        self, label: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Begin a task that nobody watches."""
        return nullcontext(lambda _units, _remark: None)

    def say(self, line: str) -> None:
        """Drop the line."""


class BarReporter:
    """Draws bars on a terminal.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Draw a bar for a task."""
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}  {{task.fields[remark]}}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(label, total=total, completed=done, remark="")
            yield lambda units, remark: bar.update(task, advance=units, remark=remark)

    def say(self, line: str) -> None:
        """Print a line."""
        with _whoever_listens():
            self._console.print(line, highlight=False)


class LineReporter:
    """Prints a line every ten seconds, and one at the end of a task.

    Parameters
    ----------
    stream : text file
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Print lines about a task."""
        begin = last = time.monotonic()
        count = done
        remark = ""

        def advance(units: int, new_remark: str) -> None:
            nonlocal count, remark, last
            count += units
            remark = new_remark
            now = time.monotonic()
            if count < total and now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                rate = (count - done) / (now - begin)
                eta = f", {duration((total - count) / rate)} left" if rate > 0 else ""
                self.say(f"{label}: {count}/{total} {unit}{eta}{_and(remark)}")

        yield advance
        elapsed = duration(time.monotonic() - begin)
        self.say(f"{label}: {count}/{total} {unit} in {elapsed}{_and(remark)}")

    def say(self, line: str) -> None:
        """Print a line."""
        with _whoever_listens():
            print(line, file=self._stream, flush=True)


def _whoever_listens() -> AbstractContextManager[None]:
    """Go on where a line can't be shown: a terminal or a pipe's reader may be gone."""
    return suppress(OSError)


def reporter_for(stream: TextIO) -> Reporter:
    """Return bars for a terminal, lines for anything else."""
    if stream.isatty():
        return BarReporter(Console(file=stream))
    return LineReporter(stream)


def _and(remark: str) -> str:
    return f", {remark}" if remark else ""


def duration(seconds: float) -> str:
    """Return a time span as a person says it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes / 60:.1f} h"


def byte_count(count: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, size in _UNITS:
        if count >= size:
            return f"{float(f'{count / size:.3g}'):,g} {unit}"
    return f"{count} B"
