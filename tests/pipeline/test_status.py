from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isosr_pipeline.brain import read_brain
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.engine.records import FILE, encode, encode_done, encode_failed
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.steps.status import status_of_brain, status_of_store
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec

NOW = 1.8e9
PASSES = {"restore": 100, "level 1": 10}


def unfinished(path: Path) -> Path:
    spec = VolumeSpec(
        (1, 40, 40, 40), np.dtype("uint8"), (1, 1, 1), Zyx(8, 8, 8), Zyx(16, 16, 16), ("a",)
    )
    return create_volume(path, spec, StoreAttributes()).path


def write(store: Path, *lines: bytes) -> None:
    header = {"format": 2, "making": {}, "passes": PASSES}
    (store / FILE).write_bytes(b"".join([encode(header), *lines]))


def opened(time: float, pid: int = 1, host: str = "elsewhere") -> bytes:
    return encode({"opened": time, "host": host, "pid": pid})


def done(region: int, ago: float) -> bytes:
    return encode_done("restore", region, NOW - ago, {"bytes": 1})


def test_rate_and_eta_are_of_the_last_minutes(tmp_path):
    store = unfinished(tmp_path / "a.zarr")
    early = [done(i, 5000 - i) for i in range(10)]
    late = [done(10 + i, 4 * i) for i in range(30)]
    write(store, opened(NOW - 6000), *early, opened(NOW - 120), *late)
    status = status_of_store(store, NOW)
    restore, level = status.passes
    assert (restore.done, restore.total) == (40, 100)
    # What was done before the run was resumed says nothing of its rate.
    assert restore.rate == pytest.approx(30 / 120)
    assert restore.eta_seconds == pytest.approx(60 / 0.25)
    assert (level.done, level.rate, level.eta_seconds) == (0, 0, None)
    assert (status.running, status.host) == (None, "elsewhere")


def test_nothing_for_a_long_time_is_told(tmp_path, isosr, capsys):
    store = unfinished(tmp_path / "a.zarr")
    begin = time.time() - 5000
    write(
        store,
        opened(begin),
        encode_done("restore", 1, time.time() - 12 * 60, {"bytes": 1}),
        encode_failed("restore", 2, time.time() - 13 * 60, "z 0:16: the slice is torn"),
        b'{"pass":"restore","reg',
    )
    assert isosr("status", store) == 0
    shown = capsys.readouterr().out
    assert "no region for 12 min" in shown
    assert "1 of 100 regions (1.0 %), 1 failed" in shown
    assert "restore, region 2 failed: z 0:16: the slice is torn" in shown
    assert "left" not in shown


def test_many_failures_are_counted_and_the_last_ones_shown(tmp_path):
    store = unfinished(tmp_path / "a.zarr")
    failed = [encode_failed("restore", i % 20, NOW - 60 + i, f"message {i}") for i in range(40)]
    write(store, opened(NOW - 60), *failed, done(7, 1))
    status = status_of_store(store, NOW)
    assert status.failed == 19
    assert [f.message for f in status.failures] == [f"message {i}" for i in range(35, 40)]


def test_a_process_that_fills_a_store_is_told_and_one_that_died_too(tmp_path):
    store = unfinished(tmp_path / "a.zarr")
    with Ledger(store, {}, PASSES):
        pass
    code = f"""
import sys, pathlib
from isosr_pipeline.engine.ledger import Ledger
with Ledger(pathlib.Path({str(store)!r}), {{}}, {{}}) as ledger:
    ledger.record("restore", 3, {{"bytes": 1}})
    print("begun", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    status = status_of_store(store)
    assert (status.running, status.pid) == (True, process.pid)
    assert status.passes[0].rate > 0
    process.kill()
    process.communicate()
    status = status_of_store(store)
    assert status.running is False
    assert status.passes[0].eta_seconds is None


def test_a_complete_store_and_one_that_is_none(tmp_path, make_store, isosr, capsys):
    store = make_store(np.ones((20, 20, 20), np.uint8)).path
    assert isosr("status", store) == 0
    assert "complete since 20" in capsys.readouterr().out
    assert isosr("status", store, "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "complete"
    assert isosr("status", tmp_path / "none.zarr") == 2


def test_steps_of_a_brain_are_told_in_their_order(tmp_path, isosr, capsys):
    brain = tmp_path / "brain.yaml"
    brain.write_text("source: a.tif\noutput: out\n")
    assert [s.state for s in status_of_brain(read_brain(brain))] == ["not begun"] * 4
    store = unfinished(tmp_path / "out" / "volume.zarr")
    write(store, opened(time.time() - 100), done(1, 0))
    assert isosr("status", brain, "--json") == 0
    steps = json.loads(capsys.readouterr().out)
    assert [s["step"] for s in steps] == ["convert", "train", "restore", "evaluate"]
    assert steps[0]["state"] == "unfinished"
    assert steps[0]["store"]["passes"][0]["done"] == 1
    assert isosr("status", brain) == 0
    shown = capsys.readouterr().out
    assert "convert    unfinished" in shown
    assert "train      not begun" in shown
