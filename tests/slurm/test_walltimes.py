"""Walltimes of a minute on a real SLURM: workers leave, drivers queue again, nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from faults import assert_identical, lines
from harness import Slurm
from restoring import (
    HELD,
    JOB,
    PACING,
    REGIONS,
    Pace,
    Runs,
    Stage,
    jobs_of_workers,
    restoring,
    shown_by,
    site_file,
    until,
)

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.scripts import Driver, driver_script, exit_file, log_of
from isosr_pipeline.site_files import read_site

MINUTE = {**JOB, "memory": "3 GB", "walltime": "00:01:00", "workers": 1}
SECONDS = 3.5
"""That a region takes: two of them at a time are more than a worker can do in a minute."""

TRAINING = (
    *("--iterations", 110, "--crop", 32, "--width", 4, "--planes", 2),
    *("--threads", 1, "--device", "cpu"),
)
"""One thread: with another number sums are rounded otherwise."""
SECONDS_PER_STEP = 0.5
NAMES = ("losses.csv", "weights.safetensors")


class Expiring:
    """A restoring whose workers have a minute; it is led from here."""

    def __init__(self, stage: Stage, runs: Runs, folder: Path) -> None:
        folder.mkdir()
        self.stage, self.out, self.pace = stage, folder / "out.zarr", Pace(folder / "pace")
        self.pace.slow(SECONDS)
        site = site_file(folder / "site.yaml", cpu=MINUTE, setup=self.pace.setup)
        self.run = runs(*restoring(stage, self.out, site), folder=folder)

    def prove(self) -> None:
        shown = shown_by(self.run)
        assert self.run.returncode == 0, shown
        assert_identical(self.out, self.stage.undisturbed)
        jobs = self.pace.jobs()
        assert len(jobs) > 1, shown
        assert self.pace.done() == list(range(REGIONS))
        found = commands.find_jobs(jobs)
        assert [found[job].state for job in jobs[:-1]] == ["COMPLETED"] * (len(jobs) - 1)
        assert all(f"job {job} (COMPLETED" in shown for job in jobs[:-1]), shown


class Driven:
    """A restoring whose driver is a job that has two minutes, and may be told to end after one."""

    def __init__(self, stage: Stage, slurm: Slurm, folder: Path) -> None:
        folder.mkdir()
        self.stage, self.slurm, self.out = stage, slurm, folder / "out.zarr"
        self.pace = Pace(folder / "pace")
        self.pace.hold()
        workers = {**MINUTE, "walltime": "00:10:00"}
        path = site_file(folder / "site.yaml", cpu=workers, setup=self.pace.setup)
        site = read_site(path)
        command = restoring(stage, self.out, path, "--resume")
        driver = Driver(
            name="restore",
            comment="isosr:test",
            resources=site.leading.model_copy(update={"walltime": 120, "memory": 2**30}),
            command=[sys.executable, "-m", "isosr_pipeline", *map(str, command)],
            folder=folder,
            log=folder / "log-%j.txt",
        )
        self.number = commands.submit(driver_script(site, driver))
        self.log = log_of(self.number, driver.log)

    def go_on(self) -> None:
        """Let go what waits once the driver has recorded what could be done, and queued again."""
        until(lambda: lines(self.out) >= HELD, "a driver records what is not held")
        restarts = self.slurm.field(self.number, "Restarts")
        self.before = self.pace.done()
        first = set(self.pace.jobs())
        until(
            lambda: self.slurm.field(self.number, "Restarts") != restarts, "a driver queues again"
        )
        until(lambda: not first & jobs_of_workers(), "the first run's workers are gone")
        self.pace.let_go()

    def prove(self) -> None:
        self.slurm.wait_for(self.number, "COMPLETED", 240)
        told = self.log.read_text()
        assert exit_file(self.log).read_text().strip() == "0", told
        assert "the walltime is over: queued again" in told
        assert_identical(self.out, self.stage.undisturbed)
        assert set(self.before) == set(range(HELD)), told
        # SLURM may signal up to a minute early, and so end a quick run too: what that one had in
        # flight is done again, and what an earlier one had recorded is not.
        done = self.pace.done()
        assert set(done) == set(range(REGIONS)), told
        assert [region for region in done if region < HELD] == self.before, told
        assert f"restore: {HELD} of {REGIONS} regions were done before" in told


class Trained:
    """A training in a job that has a minute; it is waited for from here."""

    def __init__(self, stage: Stage, runs: Runs, folder: Path) -> None:
        folder.mkdir()
        self.pace = Pace(folder / "pace")
        self.pace.slow(SECONDS_PER_STEP)
        self.model, self.logs = folder / "model", folder / "isosr-logs"
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {PACING} "$@"\n')
        python.chmod(0o755)
        setup = self.pace.setup
        site = site_file(folder / "site.yaml", cpu=MINUTE, setup=setup, python=str(python))
        command = ("train", stage.cube, self.model, *TRAINING, "--cluster", site)
        self.run = runs(*command, folder=folder)
        self.undisturbed = folder / "undisturbed"
        self.other = runs("train", stage.cube, self.undisturbed, *TRAINING)

    def go_on(self) -> None:
        """Be quick once the job has queued again."""
        until(lambda: "queued again" in self._told(), "a training queues again", self.run)
        self.pace.slow(0)

    def _told(self) -> str:
        return "".join(log.read_text() for log in self.logs.glob("train-*.log"))

    def prove(self) -> None:
        told = shown_by(self.other)
        assert self.other.returncode == 0, told
        shown = shown_by(self.run)
        assert self.run.returncode == 0, shown
        assert "isosr-job: the walltime is over: queued again" in shown
        assert "interrupted" in shown
        for name in NAMES:
            assert (self.model / name).read_bytes() == (self.undisturbed / name).read_bytes(), shown


@pytest.mark.timeout(1200)
def test_what_reaches_its_walltime_goes_on_unattended(slurm, stage, runs, tmp_path):
    """Workers, a driver with workers, and a training: all at the same time, as each takes long."""
    driven = Driven(stage, slurm, tmp_path / "driven")
    training = Trained(stage, runs, tmp_path / "trained")
    expiring = Expiring(stage, runs, tmp_path / "expiring")
    training.go_on()
    driven.go_on()
    training.prove()
    driven.prove()
    expiring.prove()
    assert not jobs_of_workers()
