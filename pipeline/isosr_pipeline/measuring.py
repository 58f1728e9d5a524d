"""Measures a volume box by box on a cluster, and adds up what the boxes give.

::

    box 0 ─┐
           ├─ 0 + 1 ─┐          Neighbours are added first, then sums of neighbours: the total is
    box 1 ─┘         │          the same to the last bit in whatever order the boxes are done, and
                     ├─ …       of many boxes only a few sums wait for their neighbour.
    box 2 ─┐         │
           ├─ 2 + 3 ─┘
    box 3 ─┘
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from distributed import Client
from numpy.typing import NDArray

from isosr_cluster.runner import WAITS, run_tasks
from isosr_pipeline.engine.filling import TIMEOUT, may_pass
from isosr_pipeline.errors import HopelessError, InterruptedRunError, WorkFailedError
from isosr_pipeline.geometry import Box
from isosr_pipeline.interrupts import stop_requests
from isosr_pipeline.progress import Advance
from isosr_pipeline.store.volume import Volume

_AGAIN = "nothing is kept: give the same command again"


class Addable(Protocol):
    """What can be added up, such as `Moments` or a number."""

    def __add__(self, other: Self, /) -> Self:
        """Return the sum of both."""
        ...


Value = TypeVar("Value", bound=Addable)


class Image(Protocol):
    """Anything of shape (c, z, y, x) that is read box by box."""

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        ...

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box; returns (z, y, x)."""
        ...


def measure(
    client: Client,
    job: Callable[[Box], Value],
    boxes: Iterable[Box],
    advance: Advance,
    where: str,
    *,
    timeout: float | None = TIMEOUT,
    waits: Sequence[float] = WAITS,
) -> Value:
    """Call a job with every box on the workers of a cluster, and return the sum of what it gives.

    The sum does not depend on workers, nor on the order in which they are done. The first box that
    fails ends the work, for a sum without it would be of another volume.

    Parameters
    ----------
    client : distributed.Client
    job : callable
        Picklable; it stays on a worker, with what it has opened, until all boxes are done.
    boxes : iterable of Box
        At least one; taken one by one as others are done.
    advance : callable
        Told of each box that is done.
    where : str
        What is measured, for messages, such as ``"spectrum, input (brain.zarr)"``.
    timeout : float or None
        Seconds that a box may take; see `run_tasks`.
    waits : sequence of float
        Seconds between attempts at a box whose errors may pass.

    Raises
    ------
    WorkFailedError
        When a box could not be measured; the message names it.
    InterruptedRunError
        After Ctrl-C or SIGTERM.
    ClusterLostError
        When the scheduler is gone.
    """
    total: Total[Value] = Total()
    done = 0
    with stop_requests() as stopping:
        outcomes = run_tasks(
            client,
            partial(_numbered, job),
            enumerate(boxes),
            timeout=timeout,
            waits=waits,
            may_pass=may_pass,
            should_stop=stopping,
            way_on=_AGAIN,
        )
        # Closed by hand: what is raised would keep it, and its tasks, alive.
        with closing(outcomes):
            for outcome in outcomes:
                index, box = outcome.item
                if outcome.error is not None or outcome.value is None:
                    raise WorkFailedError(
                        f"{where}: the box {box} failed: {outcome.error or 'no result'}\n"
                        f"mend the cause; {_AGAIN}"
                    ) from outcome.error
                total.add(index, outcome.value)
                done += 1
                advance(1, "")
        interrupted = stopping()
    if interrupted:
        raise InterruptedRunError(f"{where}: interrupted after {done} boxes; {_AGAIN}")
    return total.value


def _numbered(job: Callable[[Box], Value], item: tuple[int, Box]) -> Value:
    return job(item[1])


class Total(Generic[Value]):
    """A sum of numbered values that come in any order, the same to the last bit in each."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], Value] = {}

    def __len__(self) -> int:
        """How many sums are held: values that came next to each other are one."""
        return len(self._waiting)

    def add(self, index: int, value: Value) -> None:
        """Add a value.

        Parameters
        ----------
        index : int
            Its number, from 0; each comes once, and in the end none is left out.
        value : Value
        """
        level = 0
        while (neighbour := self._waiting.pop((level, index ^ 1), None)) is not None:
            value = neighbour + value if index & 1 else value + neighbour
            level, index = level + 1, index >> 1
        self._waiting[level, index] = value

    @property
    def value(self) -> Value:
        """The sum of at least one value."""
        # Larger sums are of earlier values.
        ordered = (self._waiting[key] for key in sorted(self._waiting, reverse=True))
        return reduce(operator.add, ordered)


@dataclass(frozen=True)
class ReopenedVolume:
    """A volume that travels to workers, each of which opens it when it first reads.

    Parameters
    ----------
    path : Path
    shape : tuple of 4 ints
        Lengths of c, z, y, x.
    voxel_size : tuple of 3 floats
        In µm, order z, y, x.
    identity : str
        Of the volume; another one in its place is refused.
    """

    path: Path
    shape: tuple[int, int, int, int]
    voxel_size: tuple[float, float, float]
    identity: str

    @classmethod
    def of(cls, volume: Volume) -> ReopenedVolume:
        """Describe a volume that is open here."""
        return cls(volume.path, volume.shape, volume.voxel_size, volume.identity)

    def read(self, channel: int, box: Box) -> NDArray[Any]:
        """Read a box that lies in the volume; returns (z, y, x) of the volume's dtype.

        Raises
        ------
        InputError
            When a shard is damaged.
        HopelessError
            When another store has taken its place.
        OSError
            When the store is gone, or another attempt may succeed.
        """
        data = self._volume.read(channel, box)
        # Afterwards: shards of a store that was removed meanwhile read as zeros.
        self._require(self._volume.is_same())
        return data

    @cached_property
    def _volume(self) -> Volume:
        volume = Volume(self.path)
        self._require(volume.identity == self.identity)
        return volume

    def _require(self, is_same: bool) -> None:
        if not is_same:
            raise HopelessError(f"{self.path} has been replaced since it was first opened")
