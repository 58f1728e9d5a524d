from __future__ import annotations

import pytest
import torch

from isosr_pipeline.devices import choose_device, cluster_for, memory_of_task
from isosr_pipeline.errors import InputError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")


@no_gpu
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_also_on_workers(client):
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    for attempt in (
        lambda: choose_device("cuda"),
        lambda: cluster_for("cuda", "local", None),
        lambda: memory_of_task(client, "cuda"),
    ):
        with pytest.raises(InputError, match="no CUDA GPU here"):
            attempt()


def test_one_process_has_a_gpu_for_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cluster_for("auto", "local", None).args == ("local", 1)
    assert cluster_for("cuda", "local", 3).args == ("local", 3)
    assert cluster_for("cuda", "tcp://host:1", None).args == ("tcp://host:1", None)
    assert cluster_for("cpu", "local", None).args == ("local", None)


def test_memory_on_a_cpu_is_that_of_a_worker(client):
    assert 2**28 < memory_of_task(client, "cpu") < 2**40
