from __future__ import annotations

import operator
import os
import time
from functools import partial

import pytest
from distributed import LocalCluster

from isosr_cluster.asking import within
from isosr_cluster.clients import _WORKERS, memory_per_task, open_client
from isosr_cluster.errors import ClusterConfigError, ClusterLostError, ClusterUnreachableError
from isosr_cluster.runner import run_tasks


def test_every_item_ends_once_and_errors_are_told(client):
    outcomes = {o.item: o for o in run_tasks(client, partial(operator.truediv, 12), range(7))}
    assert set(outcomes) == set(range(7))
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    assert all(outcomes[i].value == 12 / i for i in range(1, 7))


def test_no_items_end_at_once(client):
    assert list(run_tasks(client, abs, [])) == []


def test_few_tasks_are_known_at_a_time(client):
    taken = 0

    def items():
        nonlocal taken
        for index in range(60):
            taken += 1
            yield index

    ahead = [taken - done for done, _ in enumerate(run_tasks(client, abs, items()), start=1)]
    # Two a thread, and sixteen once workers are known to be quick: never all that there are.
    assert max(ahead) <= 16 * sum(client.nthreads().values())


def test_errors_that_may_pass_are_tried_again(client, tmp_path):
    log = tmp_path / "attempts"
    function = partial(os.replace, log)
    outcomes = list(
        run_tasks(
            client,
            function,
            [tmp_path / "moved"],
            waits=(0.05,),
            may_pass=lambda _: log.touch() is None,
        )
    )
    assert outcomes[0].error is None
    (tmp_path / "moved").unlink()
    outcomes = list(run_tasks(client, function, [tmp_path / "moved"]))
    assert isinstance(outcomes[0].error, FileNotFoundError)


def _square_but_die_once(mark: str):
    def square(item: int) -> int:
        if item == 3 and not os.path.exists(mark):  # noqa: PTH110 - sent by value to a worker
            os.close(os.open(mark, os.O_CREAT))
            os.kill(os.getpid(), 9)
        return item * item

    return square


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    mark = tmp_path / "mark"
    with open_client(workers=2) as own:
        outcomes = list(run_tasks(own, _square_but_die_once(str(mark)), range(8)))
    assert mark.exists()
    assert sorted(o.value for o in outcomes) == [i * i for i in range(8)]


def test_results_that_die_with_their_worker_are_computed_again():
    seen = []
    with open_client(workers=2) as own:
        for outcome in run_tasks(own, lambda item: item * item, range(60)):
            if len(seen) % 20 == 0:
                # What it has computed and nobody has fetched is lost with it.
                os.kill(next(iter(own.run(os.getpid).values())), 9)
            seen.append(outcome.value)
    assert sorted(seen) == [i * i for i in range(60)]


def test_clusters_that_make_no_sense_are_refused():
    with pytest.raises(ClusterConfigError, match="tcp://host:port"), open_client("slurm"):
        pass
    with pytest.raises(ClusterConfigError, match="workers is 0"), open_client(workers=0):
        pass
    with pytest.raises(ClusterConfigError, match="has its own"), open_client("tcp://x:1", 3):
        pass


@pytest.mark.parametrize(
    "address", ["tcp://h:abc", "tcp://h", "tcp://h:0", "tcp://h:70000", "tcp://:1", "tcp://a b:1"]
)
def test_addresses_that_are_none_are_refused(address):
    with pytest.raises(ClusterConfigError, match="port of 1 to 65535"), open_client(address):
        pass


def test_an_address_where_nobody_answers():
    with (
        pytest.raises(ClusterUnreachableError, match="no scheduler answers"),
        open_client("tcp://127.0.0.1:9"),
    ):
        pass


def test_a_running_scheduler_is_used(client):
    with open_client(client.scheduler.address) as second:
        assert [o.value for o in run_tasks(second, abs, [-3])] == [3]


def test_memory_is_shared_between_workers(client):
    assert 2**28 < memory_per_task(client) < 2**40


def test_servers_bind_to_this_machine_only(client):
    info = client.scheduler_info(n_workers=-1)
    addresses = [info["address"], *info["workers"]]
    assert all(a.startswith("tcp://127.0.0.1:") for a in addresses)


def test_a_scheduler_without_workers_is_named(monkeypatch):
    monkeypatch.setattr("isosr_cluster.clients._SECONDS_FOR_A_WORKER", 0.5)
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as empty,
        pytest.raises(ClusterUnreachableError, match=r"has no workers after 0\.5 s"),
        open_client(empty.scheduler_address),
    ):
        pass


def test_a_lost_scheduler_is_an_error_with_a_remedy():
    with open_client(workers=1) as own:
        outcomes = run_tasks(own, time.sleep, [0.01, 60])
        assert next(outcomes).error is None
        own.close()
        with pytest.raises(ClusterLostError, match="--resume"):
            next(outcomes)


def test_local_workers_keep_memory_and_are_not_paused_for_it():
    with open_client(workers=1) as client:
        pausing = client.run(lambda dask_worker: dask_worker.memory_manager.memory_pause_fraction)
        kept = client.run(lambda: int(os.environ["MALLOC_TRIM_THRESHOLD_"]))
    # One that keeps what it has freed, and is paused for it, would stay so.
    assert set(pausing.values()) == {False}
    assert min(kept.values()) >= 2**27


def test_running_stops_when_asked_to(client):
    taken = []
    outcomes = run_tasks(client, abs, range(1000), should_stop=lambda: len(taken) >= 3)
    taken.extend(outcome.value for _, outcome in zip(range(3), outcomes, strict=False))
    # What had ended by then is not lost; nothing else is begun.
    assert len(list(outcomes)) <= 2 * 16


def test_workers_that_dask_gives_up_are_started_again(monkeypatch):
    # So short that no process comes back in time after it was killed.
    monkeypatch.setitem(_WORKERS, "distributed.deploy.lost-worker-timeout", "10ms")
    monkeypatch.setattr("isosr_cluster.keeping._MILLISECONDS_BETWEEN_LOOKS", 500.0)
    with open_client(workers=2) as client:
        for pid in client.run(os.getpid).values():
            os.kill(pid, 9)
        assert sorted(o.value for o in run_tasks(client, abs, range(-5, 0))) == [1, 2, 3, 4, 5]
        client.wait_for_workers(2, timeout=100)


def test_a_cluster_that_stays_without_workers_is_lost(monkeypatch):
    monkeypatch.setattr("isosr_cluster.flight._SECONDS_WITHOUT_WORKERS", 1.0)
    monkeypatch.setattr("isosr_cluster.keeping._MILLISECONDS_BETWEEN_LOOKS", 1e9)
    with open_client(workers=1) as client:
        outcomes = run_tasks(client, time.sleep, [0.01, 60])
        assert next(outcomes).error is None
        client.retire_workers(list(client.scheduler_info()["workers"]))
        with pytest.raises(ClusterLostError, match=r"no worker has been there for 1 s.*--resume"):
            next(outcomes)


def test_what_a_worker_never_answers_is_not_waited_for():
    assert within(60, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.1 s"):
        within(0.1, lambda: time.sleep(5))


def test_a_run_ends_though_a_worker_never_takes_leave(client, monkeypatch):
    monkeypatch.setattr("isosr_cluster.runner._SECONDS_TO_TELL", 0.5)
    monkeypatch.setattr(client, "unregister_worker_plugin", lambda _name: time.sleep(60))
    assert sorted(outcome.value for outcome in run_tasks(client, abs, [-1, -2])) == [1, 2]


def test_workers_that_are_slow_to_end_do_not_undo_what_is_done(monkeypatch):
    close = LocalCluster.close

    def closed_late(cluster, *arguments):
        close(cluster, *arguments)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", closed_late)
    with open_client(workers=1) as client:
        assert client.submit(len, "ab").result() == 2
    with pytest.raises(TimeoutError, match="of the work"), open_client(workers=1):
        raise TimeoutError("of the work")
