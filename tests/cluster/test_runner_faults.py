"""Tasks that fail, hang or kill their workers: what the runner makes of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from functools import partial
from pathlib import Path

import dask
import pytest

from isosr_cluster.clients import open_client
from isosr_cluster.errors import TaskTimeoutError, WorkerDiedError
from isosr_cluster.runner import run_tasks

POISON = 5


def log(folder: Path, item: int) -> int:
    """Note an attempt at an item, and return which one it is."""
    for attempt in range(100):
        try:
            (folder / f"{item}.{attempt}").open("x").close()
        except FileExistsError:
            continue
        return attempt + 1
    raise AssertionError(f"item {item} is tried without end")


def attempts(folder: Path, item: int) -> int:
    return len(list(folder.glob(f"{item}.*")))


def fail_twice(folder: str, item: int) -> int:
    if log(Path(folder), item) < 3 and item == POISON:
        raise OSError("the network is away")
    return item


def test_what_fails_waits_and_the_others_go_on(client, tmp_path):
    function = partial(fail_twice, str(tmp_path))
    outcomes = run_tasks(client, function, range(60), waits=(1.0, 1.0), may_pass=bool)
    order = [outcome.value for outcome in outcomes]
    assert sorted(order) == list(range(60))
    assert order[-1] == POISON
    assert attempts(tmp_path, POISON) == 3


def test_what_always_fails_is_tried_so_often_and_no_more(client, tmp_path):
    def fail(item: int) -> None:
        log(tmp_path, item)
        raise OSError(f"{item} is gone")

    outcomes = list(run_tasks(client, fail, range(40), waits=(0.01, 0.01), may_pass=bool))
    assert sorted(str(o.error) for o in outcomes) == sorted(f"{i} is gone" for i in range(40))
    assert {attempts(tmp_path, item) for item in range(40)} == {3}


def test_a_poisonous_item_costs_few_workers_and_no_innocent_item(tmp_path):
    def kill_at_poison(item: int) -> int:
        log(tmp_path, item)
        if item == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return item

    # With one worker, whatever waits in its queue dies with the poison each time.
    with open_client(workers=1) as own:
        outcomes = {o.item: o for o in run_tasks(own, kill_at_poison, range(12))}
    assert isinstance(outcomes[POISON].error, WorkerDiedError)
    assert "memory runs out" in str(outcomes[POISON].error)
    assert {i for i, o in outcomes.items() if o.error is None} == set(range(12)) - {POISON}
    assert attempts(tmp_path, POISON) <= 8


def hang(folder: str, how: str, item: int) -> int:
    if log(Path(folder), item) == 1 and item == POISON:
        if how == "sleeping":
            time.sleep(1000)
        # PyDLL keeps the interpreter's lock, as an extension does that is stuck.
        ctypes.PyDLL(None).sleep(1000)
    return item


@pytest.mark.parametrize("how", ["sleeping", "holding the lock of the interpreter"])
def test_a_task_that_hangs_is_ended_and_tried_again(tmp_path, how, capfd):
    function = partial(hang, str(tmp_path), how)
    with open_client(workers=2) as own:
        outcomes = list(run_tasks(own, function, range(20), timeout=4.0, waits=(0.01,)))
    assert sorted(o.value for o in outcomes) == list(range(20))
    assert 2 <= attempts(tmp_path, POISON) <= 3
    if how != "sleeping":
        assert "Timeout (0:00:0" in capfd.readouterr().err


def test_a_task_that_always_hangs_is_named_with_the_limit(tmp_path):
    def sleep_long(item: int) -> int:
        log(tmp_path, item)
        if item == POISON:
            time.sleep(1000)
        return item

    with open_client(workers=2) as own:
        pids = set(own.run(os.getpid).values())
        outcomes = {o.item: o for o in run_tasks(own, sleep_long, range(8), timeout=3.0)}
        assert isinstance(outcomes[POISON].error, TaskTimeoutError)
        assert "longer than the limit of 3 s" in str(outcomes[POISON].error)
        assert attempts(tmp_path, POISON) <= 4
        assert sum(o.error is None for o in outcomes.values()) == 7
        # Nothing is left that holds on to a core or to memory.
        while all(Path(f"/proc/{pid}").exists() for pid in pids):
            time.sleep(0.1)


def test_several_threads_each_have_their_own_limit(tmp_path):
    def sleep(item: int) -> int:
        time.sleep(0.4)
        return item

    with open_client(workers=1, threads_per_worker=3) as own:
        pid = set(own.run(os.getpid).values())
        outcomes = list(run_tasks(own, sleep, range(12), timeout=20.0))
        assert sorted(o.value for o in outcomes) == list(range(12))
        assert set(own.run(os.getpid).values()) == pid


def test_a_stopped_worker_does_not_stop_the_run(tmp_path):
    def stop_once(item: int) -> int:
        if item == POISON and log(tmp_path, item) == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return item

    with dask.config.set({"distributed.scheduler.worker-ttl": "2s"}), open_client(workers=2) as own:
        outcomes = list(run_tasks(own, stop_once, range(200)))
    assert sorted(o.value for o in outcomes) == list(range(200))
    assert attempts(tmp_path, POISON) == 2
