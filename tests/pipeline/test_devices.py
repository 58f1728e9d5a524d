from __future__ import annotations

import pytest
import torch

from isosr_cluster.clients import open_client
from isosr_pipeline import clusters
from isosr_pipeline.clusters import cluster_for
from isosr_pipeline.devices import choose_device
from isosr_pipeline.errors import InputError
from isosr_pipeline.restoring.fitting import Fit, _probe, ask_workers, memory_of_block

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")


@no_gpu
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_also_on_workers(client):
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    for attempt in (
        lambda: choose_device("cuda"),
        lambda: cluster_for("cuda", "local", None),
        lambda: ask_workers(client, "identity", "cuda", "frozen"),
    ):
        with pytest.raises(InputError, match="no CUDA GPU here"):
            attempt()


def test_one_process_has_a_gpu_for_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(clusters, "find_gpus", lambda: ["0", "1"])
    assert cluster_for("auto", "local", None).keywords["gpus"] == ["0", "1"]
    assert cluster_for("cuda", "local", 1).keywords["gpus"] == ["0"]
    assert cluster_for("cpu", "local", None).keywords["gpus"] is None
    assert cluster_for("cuda", "tcp://host:1", None).args == ("tcp://host:1", None)
    with pytest.raises(InputError, match="workers is 3, and each takes a GPU"):
        cluster_for("cuda", "local", 3)


def test_the_identity_needs_no_gpu(client, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _probe("identity", "cuda", "frozen").memory is None


def test_a_block_has_what_regions_leave_of_a_workers_memory():
    with open_client(workers=1, threads_per_worker=2) as client:
        fit = ask_workers(client, "identity", "cpu", "frozen")
        assert (fit.memory, fit.factor) == (None, 1.0)
        whole = memory_of_block(client, fit, 0)
        assert 2**28 < whole < 2**40
        assert memory_of_block(client, fit, 10**8) == pytest.approx(whole - 0.6 * 4e8, abs=2)
    assert memory_of_block(client, Fit(10**9, 1.0, "32"), 10**8) == 0.6 * 10**9
