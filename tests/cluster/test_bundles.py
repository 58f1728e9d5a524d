"""Short items that are done together: each still ends, fails and is tried again by itself."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Reschedule, get_worker

from isosr_cluster import draining
from isosr_cluster.bundles import SECONDS, Bundle, Pace, do
from isosr_cluster.clients import open_client
from isosr_cluster.errors import WorkerDiedError
from isosr_cluster.runner import run_tasks

ITEMS = range(300)
POISON = 150


@pytest.fixture
def eager(monkeypatch):
    """Have items bundled as soon as the first have shown that they are short."""
    monkeypatch.setattr("isosr_cluster.flight._SECONDS_BETWEEN_COUNTS", 0.0)


def log(folder: str, item: int) -> int:
    """Note an attempt at an item, and return which one it is."""
    attempt = attempts(folder, item)
    (Path(folder) / f"{item}.{attempt}.{os.getpid()}").touch()
    return attempt + 1


def attempts(folder: str | Path, item: int) -> int:
    return len(list(Path(folder).glob(f"{item}.*")))


def raise_at(bad: int, error: Exception, item: int) -> int:
    if item == bad:
        raise error
    return item * item


def test_a_bundle_is_done_one_item_after_the_other():
    done = do(abs, Bundle((-1, -2, -3)))
    assert (done.values, done.failed) == ([1, 2, 3], False)


def test_a_bundle_ends_at_an_item_that_fails_which_is_told_of_the_first_only():
    bundle = Bundle((1, 2, 3))
    done = do(partial(raise_at, 3, ValueError("torn")), bundle)
    assert (done.values, done.failed) == ([1, 4], True)
    with pytest.raises(ValueError, match="torn"):
        do(partial(raise_at, 1, ValueError("torn")), bundle)


def test_a_bundle_ends_before_an_item_for_which_there_is_no_time():
    bundle = Bundle((1, 2, 3))
    done = do(partial(raise_at, 2, Reschedule()), bundle)
    assert (done.values, done.failed) == ([1], False)
    with pytest.raises(Reschedule):
        do(partial(raise_at, 1, Reschedule()), bundle)


def test_nothing_more_of_a_bundle_is_begun_once_it_has_taken_long(monkeypatch):
    monkeypatch.setattr("isosr_cluster.bundles._SECONDS_AT_MOST", -1.0)
    done = do(abs, Bundle((-1, -2, -3)))
    assert (done.values, done.failed) == ([1], False)


def test_bundles_take_a_given_time_and_long_items_are_by_themselves():
    pace = Pace()
    assert (pace.size, pace.per_thread) == (1, 2)
    sizes = []
    for seconds in (1e-6, SECONDS / 8, 0.7 * SECONDS, 60.0):
        pace.ended(100, 100 * seconds)
        pace.set(threads=4)
        sizes.append((pace.size, pace.per_thread))
    assert sizes == [(32, 64), (8, 16), (1, 16), (1, 16)]
    # Nothing has ended: it is long.
    pace.set(threads=4)
    assert (pace.size, pace.per_thread) == (1, 2)


def test_short_items_share_tasks_and_each_ends_once(client, eager):
    def task_of(_item: int) -> str:
        return get_worker().get_current_task()

    outcomes = list(run_tasks(client, task_of, ITEMS))
    assert sorted(o.item for o in outcomes) == list(ITEMS)
    assert len({o.value for o in outcomes}) < len(ITEMS) / 3


def test_items_that_become_long_are_no_longer_bundled(client, eager):
    def last_long(item: int) -> str:
        if item >= len(ITEMS) - 8:
            time.sleep(0.3)
        return get_worker().get_current_task()

    tasks = {o.item: o.value for o in run_tasks(client, last_long, ITEMS)}
    assert len(tasks) == len(ITEMS)
    # One that is longer than a bundle may be is the last of its task.
    assert len({tasks[item] for item in ITEMS[-8:]}) == 8


def test_an_item_that_fails_in_a_bundle_costs_no_other_one(client, eager, tmp_path):
    def fail(item: int) -> int:
        log(str(tmp_path), item)
        if item % 50 == 49:
            raise OSError(f"{item} is gone")
        return item

    outcomes = list(run_tasks(client, fail, ITEMS, waits=(0.01,), may_pass=bool))
    assert sorted(o.item for o in outcomes) == list(ITEMS)
    failed = {o.item: str(o.error) for o in outcomes if o.error is not None}
    assert failed == {item: f"{item} is gone" for item in ITEMS[49::50]}
    # Twice by itself, and once or more with others.
    assert all(2 <= attempts(tmp_path, item) <= 3 for item in failed)


def test_a_poisonous_item_of_a_bundle_is_named_alone(eager, tmp_path):
    def kill_at_poison(item: int) -> int:
        if item == POISON:
            log(str(tmp_path), item)
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        open_client(workers=2) as own,
    ):
        outcomes = {o.item: o for o in run_tasks(own, kill_at_poison, ITEMS)}
    assert sorted(outcomes) == list(ITEMS)
    assert isinstance(outcomes.pop(POISON).error, WorkerDiedError)
    assert all(o.value == o.item for o in outcomes.values())
    # In a bundle, by itself, and with nothing else on the cluster.
    assert attempts(tmp_path, POISON) == 3


def test_an_item_of_a_bundle_that_hangs_is_tried_again_by_itself(eager, tmp_path):
    def hang_once(item: int) -> int:
        if item == POISON and log(str(tmp_path), item) == 1:
            time.sleep(1000)
        return item

    with open_client(workers=2) as own:
        outcomes = list(run_tasks(own, hang_once, ITEMS, timeout=4.0, waits=(0.01,)))
    assert sorted(o.value for o in outcomes) == list(ITEMS)
    assert attempts(tmp_path, POISON) == 2


def test_a_worker_whose_end_is_near_begins_no_more_of_its_bundles(eager):
    def ends_soon(_item: int) -> bool:
        time.sleep(0.002)
        return draining.walltime._ends_at is not None

    def end_soon() -> None:
        draining.walltime._ends_at = time.time() + 1

    with open_client(workers=2) as own:
        first = next(iter(own.scheduler_info()["workers"]))
        ended = []
        for outcome in run_tasks(own, ends_soon, range(1000), timeout=60.0):
            ended.append(outcome)
            if len(ended) == 200:
                own.run(end_soon, workers=[first])
        assert sorted(o.item for o in ended) == list(range(1000))
        # One may run while it is told.
        assert sum(o.value is not False for o in ended) <= 1
        while first in own.scheduler_info()["workers"]:
            time.sleep(0.1)
