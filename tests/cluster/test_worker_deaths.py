"""Workers that are killed while a cluster starts, and while it is asked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from isosr_cluster.asking import ask_all
from isosr_cluster.clients import _wait_for_all, memory_per_task, open_client
from isosr_cluster.errors import ClusterLostError, ClusterUnreachableError


@contextmanager
def killing(enough: Callable[[list[int]], bool]) -> Iterator[list[int]]:
    """Kill each new worker process as soon as it is seen, until there were enough."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    killed: list[int] = []
    end = threading.Event()

    def kill() -> None:
        while not end.is_set() and not enough(killed):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if (
                        process.pid not in before
                        and "spawn_main" in " ".join(process.cmdline())
                        and not enough(killed)
                    ):
                        before.add(process.pid)
                        process.kill()
                        killed.append(process.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("gpus", [None, ["0", "1"]], ids=["cpu", "gpus"])
def test_a_worker_that_is_killed_as_it_starts_is_started_again(gpus):
    with (
        killing(lambda killed: len(killed) >= 1) as killed,
        open_client(workers=2, gpus=gpus) as client,
    ):
        assert len(killed) == 1
        assert len(set(ask_all(client, os.getpid))) == 2


def test_workers_that_never_start_are_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr("isosr_cluster.clients._STARTS", 2)
    with (
        killing(lambda _: False),
        pytest.raises(ClusterUnreachableError, match=r"not start in 2 attempts.*fewer --workers"),
        open_client(workers=1),
    ):
        pass


def test_workers_that_are_killed_as_they_are_started_anew_come_back(monkeypatch):
    monkeypatch.setattr("isosr_cluster.keeping._MILLISECONDS_BETWEEN_LOOKS", 500.0)
    with open_client(workers=1) as client:
        (first,) = ask_all(client, os.getpid)
        with killing(lambda killed: len(killed) >= 3) as killed:
            os.kill(first, 9)
            end = time.monotonic() + 60
            while len(killed) < 3 and time.monotonic() < end:
                time.sleep(0.1)
        assert len(killed) == 3
        (second,) = ask_all(client, os.getpid)
        assert second not in {first, *killed}
        assert memory_per_task(client) > 0


def test_workers_that_do_not_come_in_time_are_named(monkeypatch):
    monkeypatch.setattr("isosr_cluster.clients._SECONDS_FOR_ALL_WORKERS", 0.3)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty,
        Client(empty) as client,
        pytest.raises(ClusterUnreachableError, match=r"0 of 3 workers .* after 0\.3 s; give fewer"),
    ):
        _wait_for_all(client, 3)


def test_no_worker_at_all_is_a_lost_cluster(monkeypatch):
    monkeypatch.setattr("isosr_cluster.asking._SECONDS_FOR_A_WORKER", 0.3)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty,
        Client(empty) as client,
        pytest.raises(ClusterLostError, match="no worker has been there"),
    ):
        memory_per_task(client)


def die_at_first(folder: Path, most: int) -> int:
    for attempt in range(most):
        with suppress(FileExistsError):
            (folder / str(attempt)).touch(exist_ok=False)
            os.kill(os.getpid(), 9)
    return os.getpid()


def test_workers_that_die_while_they_are_asked_are_asked_again(tmp_path):
    with open_client(workers=2) as client:
        found = ask_all(client, partial(die_at_first, tmp_path, 2))
        assert 1 <= len(set(found)) <= 2
        assert len(list(tmp_path.iterdir())) == 2


def test_a_question_that_kills_workers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr("isosr_cluster.asking._WAITS", (0.1,))
    with (
        open_client(workers=1) as client,
        pytest.raises(ClusterLostError, match=r"died each of the 2 times.*fewer --workers"),
    ):
        ask_all(client, partial(die_at_first, tmp_path, 100))
    assert len(list(tmp_path.iterdir())) == 2


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def refuse(folder: Path, error: Callable[[], Exception]) -> None:
    with (folder / "asked").open("a") as file:
        file.write("x")
    raise error()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (partial(OSError, 5, "the disk is gone"), OSError),
        (partial(ValueError, "the disk is gone"), ValueError),
        (partial(UnpicklableError, "the disk", "the disk is gone"), RuntimeError),
    ],
)
def test_an_error_of_the_function_is_raised_as_it_is(client, tmp_path, error, kind):
    with pytest.raises(kind, match="the disk is gone") as caught:
        ask_all(client, partial(refuse, tmp_path, error))
    assert not isinstance(caught.value, ConnectionError)
    # Each of the two workers was asked once.
    assert (tmp_path / "asked").read_text() == "xx"
