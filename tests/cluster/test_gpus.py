from __future__ import annotations

import os
from pathlib import Path

import pytest

from isosr_cluster.clients import memory_per_task, open_client
from isosr_cluster.errors import ClusterConfigError
from isosr_cluster.gpus import find_gpus
from isosr_cluster.runner import run_tasks

CUT = """\
GPU 0: NVIDIA H200 (UUID: GPU-aa)
  MIG 1g.18gb     Device  0: (UUID: MIG-1)
  MIG 2g.35gb     Device  1: (UUID: MIG-2)
GPU 1: NVIDIA H200 (UUID: GPU-bb)
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("0,2", ["0", "2"]),
        ("GPU-aa, MIG-1", ["GPU-aa", "MIG-1"]),
        ("1,-1,0", ["1"]),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_the_environment_names(monkeypatch, value, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert find_gpus() == expected


def nvidia_smi(folder: Path, text: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
    program.chmod(0o755)


def test_gpus_are_those_that_the_driver_lists(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    nvidia_smi(tmp_path, CUT)
    assert find_gpus() == ["MIG-1", "MIG-2", "GPU-bb"]
    nvidia_smi(tmp_path, "No devices were found\n")
    assert find_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_gpus() == []


def test_each_worker_sees_a_gpu_of_its_own_also_after_it_has_died():
    def visible(item: int) -> tuple[int, str]:
        return item, os.environ["CUDA_VISIBLE_DEVICES"]

    with open_client(gpus=["GPU-aa", "MIG-1"]) as client:
        assert sorted(client.run(visible, 0).values()) == [(0, "GPU-aa"), (0, "MIG-1")]
        assert len(client.ncores()) == 2
        os.kill(next(iter(client.run(os.getpid).values())), 9)
        assert len(list(run_tasks(client, visible, range(20)))) == 20
        client.wait_for_workers(2)
        assert sorted(client.run(visible, 0).values()) == [(0, "GPU-aa"), (0, "MIG-1")]


def test_threads_of_a_worker_share_its_memory():
    with open_client(workers=1) as client:
        alone = memory_per_task(client)
    with open_client(workers=1, threads_per_worker=2) as client:
        assert set(client.nthreads().values()) == {2}
        assert memory_per_task(client) == alone // 2


def test_gpus_that_make_no_sense_are_refused():
    with pytest.raises(ClusterConfigError, match="gpus is empty"), open_client(gpus=[]):
        pass
    with (
        pytest.raises(ClusterConfigError, match="each of 1 GPUs"),
        open_client("local", 2, gpus=["0"]),
    ):
        pass
    with (
        pytest.raises(ClusterConfigError, match="have their own"),
        open_client("tcp://x:1", gpus=["0"]),
    ):
        pass
    with (
        pytest.raises(ClusterConfigError, match="threads_per_worker is 0"),
        open_client(threads_per_worker=0),
    ):
        pass
