"""Jobs of workers that a real SLURM takes away: a restore goes on, and its store is the same."""

from __future__ import annotations

import signal
import time

from faults import assert_identical, lines
from restoring import (
    HELD,
    REGIONS,
    jobs_of_workers,
    restoring,
    shown_by,
    site_file,
    until,
    until_held,
)

SECONDS_OF_SILENCE = 30.0
SECONDS_WITHOUT_DRIVER = 120.0


def test_workers_that_are_taken_away_again_and_again_cost_nothing_but_time(
    slurm, stage, pace, runs, tmp_path
):
    """Cancelled, on a node that goes down, preempted; at last the controller falls silent."""
    site = site_file(tmp_path / "site.yaml", setup=pace.setup)
    out = tmp_path / "out.zarr"
    pace.hold()
    run = runs(*restoring(stage, out, site))
    first = until_held(pace, run, HELD, "two jobs of workers")

    # What is done between the strikes makes up for the losses, which are replaced soon then.
    slurm.run("scancel", str(min(first)))
    pace.hold(HELD + 4)
    second = until_held(pace, run, HELD + 1, "another job in place of a cancelled one")
    assert max(first) in second

    slurm.run("scancel", *map(str, second))
    pace.hold(HELD + 8)
    third = until_held(pace, run, HELD + 5, "others in place of all")
    assert not third & second

    slurm.down("n1")
    until(lambda: bool(jobs_of_workers("NODE_FAIL")), "a job lost with its node", run)
    slurm.resume("n1")
    pace.hold(HELD + 12)
    fourth = until_held(pace, run, HELD + 9, "a job on the node that is back")
    assert len(fourth & third) == 1

    asked = ("--partition=high", "--nodes=2", "--exclusive", "--mem=0")
    other = slurm.submit("sleep 2", *asked)
    slurm.wait_for(other, "COMPLETED")
    pace.hold(HELD + 16)
    until_held(pace, run, HELD + 13, "others in place of those that were preempted")
    # One that had just taken the place of the first may be among them.
    assert jobs_of_workers("PREEMPTED") >= fourth

    with slurm.paused():
        silent = time.monotonic()
        pace.let_go()
        until(lambda: len(set(pace.done())) == REGIONS, "the rest of the regions", run)
        until(lambda: time.monotonic() - silent > SECONDS_OF_SILENCE, "the end of the silence")
    shown = shown_by(run)
    assert run.returncode == 0, shown
    assert_identical(out, stage.undisturbed)
    assert not jobs_of_workers()
    assert shown.count("another takes its place") == 6, shown


def test_workers_do_not_outlive_a_driver_that_is_killed(slurm, stage, pace, runs, tmp_path):
    site = site_file(tmp_path / "site.yaml", setup=pace.setup)
    out = tmp_path / "out.zarr"
    pace.hold()
    run = runs(*restoring(stage, out, site))
    until_held(pace, run, HELD, "two jobs of workers")
    until(lambda: lines(out) == HELD, "the ledger knows what is done", run)
    run.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    pace.let_go()
    until(lambda: not jobs_of_workers(), "the end of the workers")
    assert time.monotonic() - killed < SECONDS_WITHOUT_DRIVER

    run = runs(*restoring(stage, out, site, "--resume"))
    shown = shown_by(run)
    assert run.returncode == 0, shown
    assert f"restore: {HELD} of {REGIONS} regions were done before" in shown
    assert_identical(out, stage.undisturbed)
