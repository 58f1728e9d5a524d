"""The SLURM of the tests does what tests on top of it rely on, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from guard import belonging
from harness import Slurm, SlurmTestError

HERE = Path(__file__).parent


def test_jobs_run_with_gpus(slurm, tmp_path):
    output = tmp_path / "output"
    options = ("--gres=gpu:2", f"--output={output}")
    first = slurm.submit("echo $CUDA_VISIBLE_DEVICES on $SLURMD_NODENAME", *options)
    slurm.wait_for(first, "COMPLETED")
    assert output.read_text() == "0,1 on n1\n"


def test_a_preempted_job_is_queued_again(slurm):
    whole = ("--nodes=2", "--cpus-per-task=8", "--ntasks-per-node=1")
    low = slurm.submit("sleep 600", *whole)
    slurm.wait_for(low, "RUNNING")
    high = slurm.submit("sleep 600", *whole, "--partition=high")
    slurm.wait_for(high, "RUNNING")
    slurm.wait_for(low, "PENDING")
    assert slurm.jobs() == {low: "PENDING", high: "RUNNING"}
    slurm.run("scancel", str(high))
    slurm.wait_for(low, "RUNNING")
    assert slurm.field(low, "Restarts") == "1"


def test_a_job_on_a_node_that_goes_down_fails(slurm):
    job = slurm.submit("sleep 600", "--nodelist=n2", "--no-requeue")
    slurm.wait_for(job, "RUNNING")
    slurm.down("n2")
    slurm.wait_for(job, "NODE_FAIL")
    assert slurm.node("n2") == "DOWN"


def test_the_next_test_finds_both_nodes_idle(slurm):
    assert (slurm.node("n1"), slurm.node("n2")) == ("IDLE", "IDLE")
    assert not slurm.jobs()


def test_jobs_outlive_a_controller_that_is_started_again(slurm):
    job = slurm.submit("sleep 600")
    slurm.wait_for(job, "RUNNING")
    with slurm.killed(), pytest.raises(SlurmTestError, match="slurmctld"):
        slurm.wait_for(job, "COMPLETED", 1)
    slurm.wait_for(job, "RUNNING")
    assert slurm.jobs() == {job: "RUNNING"}


def test_waiting_tells_what_was_waited_for(slurm):
    job = slurm.submit("exit 3")
    with pytest.raises(
        SlurmTestError, match=f"job {job} is FAILED, not COMPLETED(.|\n)*ExitCode=3:0"
    ):
        slurm.wait_for(job, "COMPLETED")
    held = slurm.submit("true", "--hold")
    with pytest.raises(SlurmTestError, match=f"not yet: job {held} is RUNNING"):
        slurm.wait_for(held, "RUNNING", 0.5)


def test_nothing_is_left_when_the_tests_are_killed():
    script = (
        "from harness import Slurm; slurm = Slurm(); "
        "slurm.wait_for(slurm.submit('trap \"\" TERM; sleep 600; sleep 600'), 'RUNNING'); "
        "print(slurm.conf, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        conf = Path(tests.stdout.readline().strip())
        assert any(process.name() == "slurmstepd" for process in belonging(conf))
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while belonging(conf) or conf.parent.exists():
        assert time.monotonic() < deadline, belonging(conf)
        time.sleep(0.1)


def test_a_daemon_that_does_not_start_shows_its_log(monkeypatch, tmp_path):
    before = {process.pid for process in psutil.Process().children()}
    broken = tmp_path / "slurmd"
    broken.write_text("#!/bin/sh\necho no room on this machine\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SlurmTestError, match=r"n\d has ended with exit code 7\n(.|\n)*no room"):
        Slurm()
    started = {process.pid for process in psutil.Process().children()}
    assert started <= before
