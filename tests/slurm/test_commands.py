"""What the commands say, asked of a real SLURM."""

from __future__ import annotations

import threading
import time

import pytest

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm.commands import cancel, check, find_jobs, is_available, submit


def _script(lines: str = "sleep 600", *options: str) -> str:
    directives = ("--mem=100M", "--cpus-per-task=1", "--output=/dev/null", *options)
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in directives), lines, ""])


def test_a_job_is_submitted_found_and_cancelled(slurm):
    assert is_available()
    job = submit(_script("sleep 600", "--job-name=brain", "--time=1-02:03:00"))
    slurm.wait_for(job, "RUNNING")
    found = find_jobs([job])[job]
    assert (found.state, found.node, found.name) == ("RUNNING", "n1", "brain")
    assert (found.limit, found.reason, found.ended) == ("1-02:03:00", "", False)
    cancel([job])
    slurm.wait_for(job, "CANCELLED")
    assert find_jobs([job])[job].ended
    cancel([job])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--partition=nowhere", "invalid partition specified: nowhere"),
        ("--mem=2T", "Requested node config|Memory specification can not"),
        ("--gres=gpu:3", "Requested node configuration is not available"),
        ("--gres=tpu:1", "Invalid generic resource"),
        ("--time=soon", "Invalid --time specification"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words(slurm, option, words):
    for ask in (check, submit):
        with pytest.raises(SlurmError, match=words):
            ask(_script("true", option))
    assert not slurm.jobs()


def test_checking_submits_nothing(slurm):
    before = find_jobs()
    check(_script())
    assert find_jobs() == before


def test_ended_and_waiting_jobs_are_told_apart(slurm):
    scripts = {
        "COMPLETED": _script("true"),
        "FAILED": _script("exit 3"),
        "PENDING": _script("true", "--hold"),
    }
    jobs = {state: submit(script) for state, script in scripts.items()}
    for state, job in jobs.items():
        slurm.wait_for(job, state)
    found = find_jobs(jobs.values())
    assert {state: found[job].ended for state, job in jobs.items()} == {
        "COMPLETED": True,
        "FAILED": True,
        "PENDING": False,
    }
    assert found[jobs["PENDING"]].reason == "JobHeldUser"
    assert found[jobs["FAILED"]].reason == "NonZeroExitCode"


def test_a_preempted_job_has_not_ended(slurm):
    whole = ("--nodes=2", "--ntasks-per-node=1", "--exclusive")
    low = submit(_script("sleep 600", *whole))
    slurm.wait_for(low, "RUNNING")
    high = submit(_script("sleep 600", *whole, "--partition=high"))
    slurm.wait_for(high, "RUNNING")
    slurm.wait_for(low, "PENDING")
    assert not find_jobs([low])[low].ended


def test_a_job_on_a_lost_node_has_ended(slurm):
    job = submit(_script("sleep 600", "--no-requeue"))
    slurm.wait_for(job, "RUNNING")
    slurm.down("n1")
    slurm.wait_for(job, "NODE_FAIL")
    assert find_jobs([job])[job].ended


@pytest.mark.parametrize("text", ["a b|c%d;e", 'µm – Hirn\'s "1"', "$HOME `x` \\n", "(null)x"])
def test_names_and_comments_hold_any_characters(slurm, text):
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    job = submit(_script("true", "--hold", f'--job-name="{quoted}"', f'--comment="{quoted}"'))
    found = find_jobs([job])[job]
    assert (found.name, found.comment) == (text, text)


def test_habits_of_the_shell_change_nothing(slurm, monkeypatch):
    job = submit(_script("true", "--hold"))
    for name, value in (
        ("SBATCH_PARTITION", "nowhere"),
        ("SQUEUE_PARTITION", "high"),
        ("SQUEUE_NAMES", "other"),
        ("SCANCEL_NAME", "other"),
        ("SCANCEL_INTERACTIVE", "1"),
    ):
        monkeypatch.setenv(name, value)
    assert job in find_jobs()
    check(_script())
    cancel([job])
    slurm.wait_for(job, "CANCELLED")


def test_unknown_and_forgotten_jobs_are_left_out(slurm):
    job = submit(_script("true", "--hold"))
    assert set(find_jobs([job, 999999])) == {job}
    assert find_jobs([]) == {}
    cancel([999999])
    cancel([999999, job])
    slurm.wait_for(job, "CANCELLED")
    slurm.forget_jobs()
    assert find_jobs([job]) == {}
    cancel([job])


def test_an_answer_is_waited_for_while_the_controller_is_away(slurm):
    job = submit(_script("true", "--hold"))
    found: list[dict] = []
    with slurm.killed():
        asking = threading.Thread(target=lambda: found.append(find_jobs([job])))
        asking.start()
        time.sleep(2)
        assert not found
    asking.join(60)
    assert set(found[0]) == {job}


def test_a_command_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_available()
    with pytest.raises(SlurmError, match=r"squeue is not on the path.*login node"):
        find_jobs()
