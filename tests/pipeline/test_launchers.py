"""Who starts the processes of a training, and how many there must be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from isosr_models.checkpoint import read_progress
from isosr_models.model_folder import WEIGHTS, read_description
from isosr_pipeline.errors import InputError
from isosr_pipeline.training.launchers import environment_of, find_launcher
from isosr_pipeline.training.recording import LOSSES

BATCH_SCRIPT = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
STEP = {
    **BATCH_SCRIPT,
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "n[3-4]",
    "SLURM_PROCID": "3",
}
SHELL = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
}
OPTIONS = ["--crop", 32, "--width", 4, "--planes", 2, "--device", "cpu", "--threads", 1]


@pytest.fixture
def store(make_store):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    return make_store(voxels).path


@pytest.mark.parametrize("variables", [{}, BATCH_SCRIPT, SHELL], ids=["none", "sbatch", "shell"])
def test_where_nothing_has_started_processes_training_does(variables):
    assert find_launcher(variables) is None


@pytest.mark.parametrize("variables", [STEP, {**STEP, **TORCHRUN}, TORCHRUN])
def test_what_is_started_must_be_what_is_asked_for(variables):
    launcher = find_launcher(variables)
    assert (launcher.processes, launcher.nodes, launcher.most) == (4, 2, 2)
    assert launcher.name == ("torchrun" if "WORLD_SIZE" in variables else "srun")
    launcher.check(2)
    for devices in (1, 4):
        with pytest.raises(InputError, match=f"{launcher.name} has started 4 .* --devices 2"):
            launcher.check(devices)


def test_processes_are_spread_evenly():
    uneven = find_launcher({**STEP, "SLURM_STEP_TASKS_PER_NODE": "3,1"})
    for devices in (1, 2, 3):
        with pytest.raises(InputError, match=f"have it start {devices} on each node"):
            uneven.check(devices)


def test_a_job_step_is_described_by_its_own_variables(monkeypatch):
    """Whatever the job was given: a number of tasks for all nodes, or another one for each."""
    for name, value in {**STEP, "SLURM_NTASKS": "9", "SLURM_NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    step = environment_of(find_launcher())
    step.validate_settings(2, 2)
    assert (step.world_size(), step.global_rank(), step.main_address) == (4, 3, "n3")


@pytest.mark.parametrize(
    ("variables", "devices"), [(STEP, 1), (TORCHRUN, 1), (STEP, 3)], ids=["srun", "torchrun", "3"]
)
def test_other_numbers_are_refused_before_anything_is_written(
    isosr, store, tmp_path, monkeypatch, capsys, variables, devices
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options = [*OPTIONS, "--iterations", 1, "--devices", devices]
    assert isosr("train", store, tmp_path / "model", *options) == 2
    assert "give --devices 2" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_batch_script_without_srun_starts_processes_itself(isosr, store, tmp_path, monkeypatch):
    for name, value in {**BATCH_SCRIPT, "SLURM_NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(name, value)
    model, options = tmp_path / "model", ["--preview-every", 0, "--iterations", 1, "--devices", 2]
    assert isosr("train", store, model, *OPTIONS, *options) == 0
    assert read_description(model).training["run"]["processes"] == 2


def test_torchrun_trains_and_a_signal_to_all_saves(store, tmp_path):
    model = tmp_path / "model"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--standalone"]
    program = ["-m", "isosr_pipeline", "train", store, model, *OPTIONS, "--preview-every", 0]
    more = ["--devices", 2, "--iterations", 100000]
    process = subprocess.Popen([*map(str, [*command, *program, *more])], start_new_session=True)
    while not ((model / LOSSES).exists() and len((model / LOSSES).read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    progress = read_progress(model)
    assert progress.iterations >= 3
    assert not (model / WEIGHTS).exists()
