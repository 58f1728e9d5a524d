"""Batches of crops, read ahead by loader processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from isosr_cluster.tracking import start_tracker
from isosr_pipeline.errors import IsosrError
from isosr_pipeline.interrupts import STOPPING
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.settings import TrainSettings
from isosr_pipeline.training.stored_crops import StoredCrop


def batches(
    crops: Crops,
    settings: TrainSettings,
    first: int,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
) -> Iterator[StoredCrop]:
    """Read batches of crops, as they are stored, without end.

    Parameters
    ----------
    crops : Crops
    settings : TrainSettings
    first : int
        Steps that have been taken before.
    device : torch.device
        Where they will go.
    share : tuple of 2 ints
        Number of this process, and of all that train together.

    Yields
    ------
    StoredCrop
        A batch.

    Raises
    ------
    IsosrError, OSError
        When a store can't be read, whichever process has found that.
    """
    workers = settings.loaders
    loader = DataLoader(
        _Attempts(crops),
        batch_size=settings.batch,
        sampler=_Share(first, settings.batch, *share),
        num_workers=workers,
        collate_fn=_collate,
        # Its own, since a loader draws from the random numbers that training goes on with.
        generator=torch.Generator(),
        # Zarr's event loop does not survive a fork.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_leave_signals_to_the_driver,
        # Pinned memory is what lets a copy to a GPU go on beside its work.
        pin_memory=device.type == "cuda",
    )
    with _holding_signals():
        stream = iter(loader)
    for found in stream:
        if isinstance(found, Exception):
            raise found
        yield found


@contextmanager
def _holding_signals() -> Iterator[None]:
    """Start processes that are not ended by signals before they can say that they ignore them.

    A scheduler or a terminal signals all processes of a job. Processes begin with the mask of the
    one that starts them, which gets what came meanwhile as soon as it lifts its own.
    """
    # Its own start would lift the mask too soon.
    start_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_driver(_worker: int) -> None:
    # A loader ends when the training process says so, or is gone.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Attempts(Dataset[StoredCrop | Exception]):
    """Crops, or why there is none: what a loader raises, torch makes a traceback's text of.

    Parameters
    ----------
    crops : Crops
    """

    def __init__(self, crops: Crops) -> None:
        self._crops = crops

    def __getitem__(self, index: int) -> StoredCrop | Exception:
        try:
            return self._crops[index]
        except (IsosrError, OSError) as error:
            return error


def _collate(found: list[StoredCrop | Exception]) -> StoredCrop | Exception:
    """Make a batch of crops; or return the first error."""
    errors = (one for one in found if isinstance(one, Exception))
    batch: StoredCrop | Exception = next(errors, None) or default_collate(found)
    return batch


class _Share(torch.utils.data.Sampler[int]):
    """The numbers of the crops of one process, from a step on, without end.

    All processes together take the crops that one would with a batch as large as all of theirs.
    """

    def __init__(self, first: int, batch: int, rank: int, processes: int) -> None:
        self._first, self._batch = first, batch
        self._rank, self._processes = rank, processes

    def __iter__(self) -> Iterator[int]:
        for step in itertools.count(self._first):
            begin = (step * self._processes + self._rank) * self._batch
            yield from range(begin, begin + self._batch)
