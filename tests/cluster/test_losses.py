"""When jobs of workers that end are replaced, and when that makes no sense any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from isosr_cluster.errors import SlurmBusyError, SlurmError
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.losses import (
    MOST_REFUSED,
    MOST_STILLBORN,
    Loss,
    Losses,
    never_begins,
)

DRIVER = "tls://10.0.0.1:4000"


def loss(number: int = 1, state: str = "FAILED", node: str = "n1", joined: bool = False) -> Loss:
    return Loss(number, state, node, joined, Path("/nowhere/job.log"))


def problem(losses: Losses, running: int = 0, waiting: int = 0) -> str | None:
    found = losses.problem(running, waiting, DRIVER)
    return None if found is None else str(found)


def test_jobs_that_end_before_a_worker_came_are_a_problem_after_a_few(tmp_path):
    losses = Losses(4)
    log = tmp_path / "job.log"
    log.write_text("line\n" * 30 + "No module named distributed\n")
    for number in range(MOST_STILLBORN):
        assert problem(losses) is None
        losses.add(Loss(number, "FAILED", f"n{number}", False, log))
    # As long as another runs, a worker may still come from it.
    assert problem(losses, running=1) is None
    told = problem(losses, waiting=3)
    assert (
        f"{MOST_STILLBORN} jobs have ended before a worker reached the driver at {DRIVER}" in told
    )
    assert f"the last was job {MOST_STILLBORN - 1} (FAILED on n{MOST_STILLBORN - 1})" in told
    assert "No module named distributed" in told
    assert "isosr-pipeline site check" in told


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED"])
def test_jobs_that_are_taken_before_a_worker_came_are_not_at_fault(state):
    losses = Losses(1)
    for number in range(2 * MOST_STILLBORN):
        losses.add(loss(number, state))
    assert problem(losses) is None
    assert losses.shunned == []


def test_a_worker_that_comes_makes_up_for_those_that_did_not():
    losses = Losses(1)
    for joined in range(10):
        losses.progress(joined, joined)
        for number in range(MOST_STILLBORN - 1):
            losses.add(loss(number))
        assert problem(losses) is None
    losses.add(loss())
    assert problem(losses) is not None


@pytest.mark.parametrize("jobs", [1, 20])
def test_jobs_that_end_without_a_region_done_are_a_problem_after_many(jobs):
    losses = Losses(jobs)
    count = 0
    while problem(losses, running=jobs) is None:
        count += 1
        losses.progress(5, count)
        losses.add(loss(count, "TIMEOUT", joined=True))
        assert count < 1000
    assert count > 2 * jobs
    told = problem(losses, running=jobs)
    assert f"{count} jobs of workers have ended since the last region was done" in told
    assert f"job {count} (TIMEOUT on n1)" in told
    assert "give more walltime or a smaller --shard" in told


def test_a_region_that_is_done_makes_up_for_all_losses():
    losses = Losses(1)
    for done in range(200):
        losses.progress(done, done)
        losses.add(loss(done, "TIMEOUT", joined=True))
        assert problem(losses) is None
        assert losses.seconds_to_wait == 1


def test_further_jobs_wait_longer_after_each_loss_up_to_a_minute():
    losses = Losses(10)
    assert losses.seconds_to_wait == 0
    waits = []
    for number in range(8):
        losses.add(loss(number, "TIMEOUT", joined=True))
        waits.append(losses.seconds_to_wait)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_refusals_are_a_problem_only_while_no_job_is_left():
    losses = Losses(2)
    for _ in range(MOST_REFUSED):
        assert problem(losses) is None
        losses.refused(SlurmError("SLURM refuses (QOSMaxSubmitJobPerUserLimit)"))
    assert problem(losses, running=1) is None
    assert problem(losses, waiting=1) is None
    assert "QOSMaxSubmitJobPerUserLimit" in problem(losses)
    losses.add(loss(joined=True))
    assert problem(losses) is None


@pytest.mark.parametrize("first", ["another worker", "losses"])
def test_a_node_is_shunned_where_jobs_end_at_once_while_others_work(first):
    losses = Losses(2)
    if first == "another worker":
        losses.progress(0, 1)
    losses.add(loss(1, node="n1"))
    assert losses.shunned == []
    losses.add(loss(2, node="n1"))
    if first == "losses":
        # It may be the fault of them all, until a worker comes from elsewhere.
        assert losses.shunned == []
        losses.progress(0, 1)
        losses.add(loss(3, node="n1"))
    assert losses.shunned == ["n1"]
    losses.add(loss(4, node="n1"))
    assert losses.shunned == ["n1"]


def test_a_node_is_not_shunned_for_what_is_not_its_fault():
    losses = Losses(2)
    losses.progress(0, 2)
    for number in range(4):
        losses.add(loss(number, node=""))
        losses.add(loss(number, "CANCELLED"))
        losses.add(loss(number, "FAILED", joined=True))
    assert losses.shunned == []


def test_a_node_from_which_a_worker_came_begins_anew():
    losses = Losses(2)
    losses.progress(0, 1)
    for number in range(3):
        losses.add(loss(number, node="n1"))
        losses.works_on("n1")
    assert losses.shunned == []


def test_limits_of_slurm_are_waited_for():
    losses = Losses(1)
    for _ in range(2000):
        losses.refused(SlurmBusyError("QOSMaxSubmitJobPerUserLimit"))
    assert problem(losses, running=0) is None
    assert losses.seconds_to_wait == 60


def test_jobs_that_were_stillborn_long_ago_are_forgotten():
    losses = Losses(100)
    for number in range(MOST_STILLBORN):
        losses.add(loss(number))
    losses.progress(14000, 0)
    losses.add(loss(9, "PREEMPTED", joined=True))
    assert problem(losses, running=0) is None


@pytest.mark.parametrize(
    ("reasons", "never"),
    [
        (["PartitionTimeLimit"], True),
        (["PartitionTimeLimit", "BadConstraints"], True),
        (["PartitionTimeLimit", "Priority"], False),
        ([], False),
    ],
)
def test_jobs_that_never_begin_are_a_problem(reasons, never):
    waiting = [Job(n, "PENDING", "", "10:00", "", why, "", "") for n, why in enumerate(reasons)]
    assert (never_begins(waiting) is not None) == never
