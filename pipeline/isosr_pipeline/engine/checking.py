"""Finds regions that a ledger has as done, and whose files are no longer as they were written."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.geometry import Region, RegionGrid, Zyx
from isosr_pipeline.store.written import Written, is_unchanged

# Enough to hide the latency of a network's file system.
_THREADS = 16
_TOGETHER = 1000
_AHEAD = 2 * _THREADS
_NONE = b"[]"

_Files = tuple[str, int, bytes]
"""Pass, region, and its files as JSON."""


def find_altered(ledger: Ledger) -> dict[str, set[int]]:
    """Return the regions that are done no more: files are missing, or not as they were written.

    Regions whose files were not recorded are taken as done.

    Parameters
    ----------
    ledger : Ledger

    Returns
    -------
    dict of str to set of int
        Numbers of regions, by pass.
    """
    altered: defaultdict[str, set[int]] = defaultdict(set)
    done_again: defaultdict[str, set[int]] = defaultdict(set)
    for name, region, unchanged in _compared(ledger):
        if not unchanged:
            altered[name].add(region)
        elif region in altered[name]:
            # What was done again has two records, and is as the later one says.
            done_again[name].add(region)
    lost = {
        name: {r for r in regions - done_again[name] if r in ledger.done[name]}
        for name, regions in altered.items()
    }
    return {name: regions for name, regions in lost.items() if regions}


def _compared(ledger: Ledger) -> Iterator[tuple[str, int, bool]]:
    """Yield whether the files of each record are as it says."""
    store = ledger.path.parent
    with ThreadPoolExecutor(_THREADS) as threads:
        running: deque[Future[list[tuple[str, int, bool]]]] = deque()
        # A window, for a million records must not be in memory together.
        for batch in itertools.chain(_batches(ledger.files()), [None] * _AHEAD):
            if batch is not None:
                running.append(threads.submit(_compare, store, batch))
            if running and (batch is None or len(running) >= _AHEAD):
                yield from running.popleft().result()


def _batches(files: Iterable[_Files]) -> Iterator[list[_Files]]:
    iterator = (entry for entry in files if entry[2] != _NONE)
    while batch := list(itertools.islice(iterator, _TOGETHER)):
        yield batch


def _compare(store: Path, batch: list[_Files]) -> list[tuple[str, int, bool]]:
    return [
        (name, region, all(is_unchanged(store, Written(*box)) for box in json.loads(files)))
        for name, region, files in batch
    ]


def overlapping(region: Region, step: Zyx, grid: RegionGrid, grid_step: Zyx) -> list[int]:
    """Return the regions of a coarser level that are made from a region of a finer one.

    Parameters
    ----------
    region : Region
        Of the finer level.
    step, grid_step : Zyx
        Voxels of level 0 along each side of a voxel of the finer and of the coarser level.
    grid : RegionGrid
        All regions of the coarser level.
    """
    cells = []
    for axis in range(3):
        ratio = grid_step[axis] // step[axis]
        length, count = grid.region[axis], grid.counts[1 + axis]
        first = region.box.start[axis] // ratio // length
        last = (region.box.stop[axis] - 1) // ratio // length
        cells.append(range(min(first, count - 1), min(last, count - 1) + 1))
    _, z, y, x = grid.counts
    return [((region.channel * z + i) * y + j) * x + k for i, j, k in itertools.product(*cells)]
