"""Signals as schedulers send them: to all processes of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from isosr_models.checkpoint import CHECKPOINT, read_progress
from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.team import _launch_members

OPTIONS = [
    "--crop",
    "32",
    "--width",
    "4",
    "--planes",
    "2",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--preview-every",
    "0",
]


@pytest.fixture
def training(make_store, tmp_path, hangups):
    """A training with loaders, as a group of processes of its own, that has taken a few steps."""
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    model = tmp_path / "model"
    command = [sys.executable, "-m", "isosr_pipeline", "train", make_store(voxels).path, model]
    options = ["--iterations", "100000", "--loaders", "2", *OPTIONS]
    process = subprocess.Popen([*map(str, command), *options], start_new_session=True)
    while not ((model / LOSSES).exists() and len((model / LOSSES).read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.05)
    yield process, model
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_signal_to_all_processes_saves_and_can_be_resumed(training):
    process, model = training
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 75
    assert (model / CHECKPOINT).exists()
    assert read_progress(model).iterations >= 3


def test_one_process_at_a_time_trains_a_model_and_leaves_nothing(training, isosr, capsys):
    process, model = training
    command = process.args[3:]
    for how in ("--resume", "--overwrite"):
        assert isosr(*command, how) == 2
        assert f"{model} is being trained by another process" in capsys.readouterr().err
    loaders = psutil.Process(process.pid).children(recursive=True)
    assert len(loaders) >= 2
    process.kill()
    process.wait()
    _gone, left = psutil.wait_procs(loaders, timeout=60)
    assert not left
    # What is killed leaves no lock.
    (ends,) = (i for i, word in enumerate(command) if word == "100000")
    command[ends] = str(read_progress(model).iterations + 1)
    assert isosr(*command, "--resume") == 0
    assert not (model / "lock").exists()


class _Starting:
    """Starts processes of which one meets a signal before it listens."""

    def launch(self, *_arguments):
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("process 0 terminated with signal SIGTERM")


def test_a_signal_while_processes_start_can_be_resumed():
    with pytest.raises(InterruptedRunError, match="give the same command again"):
        _launch_members(_Starting(), print, SilentReporter())
