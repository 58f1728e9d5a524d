"""Scripts of drivers on a real SLURM, with small commands in place of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.following import follow
from isosr_cluster.slurm.scripts import Driver, driver_script, exit_file, log_of, python_of
from isosr_cluster.slurm.site import Resources, Site

STOPPING = """
import pathlib, signal, sys
runs = pathlib.Path(sys.argv[1])
def stop(number, frame):
    with runs.open("a") as file: print("asked", file=file)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
again = runs.exists() and "begun" in runs.read_text()
with runs.open("a") as file: print("again" if again else "begun", file=file)
if not again or len(sys.argv) > 2:
    while True: signal.pause()
"""
"""Ends by itself only when it is run again, and asked nothing more."""

RESOURCES = {"cores": 1, "memory": "100 MB", "walltime": "00:10:00"}


class Job:
    """A driver that was submitted."""

    def __init__(self, number: int, log: Path, slurm) -> None:
        self.number, self.log, self.slurm = number, log, slurm

    def until(self, *states: str, seconds: float = 60) -> None:
        self.slurm.wait_for(self.number, states, seconds)

    @property
    def told(self) -> str:
        return self.log.read_text()

    @property
    def code(self) -> str:
        return exit_file(self.log).read_text().strip()


@pytest.fixture
def drive(slurm, tmp_path) -> Callable[..., Job]:
    def drive(*command: str, name: str = "a", site: object = None, **asked: object) -> Job:
        described = Site.model_validate({"cpu": RESOURCES, **(site or {})})
        resources = Resources.model_validate({**RESOURCES, **asked})
        log = tmp_path / name / "log-%j.txt"
        log.parent.mkdir(exist_ok=True)
        driver = Driver("job; of a", "isosr:x:y", resources, command, tmp_path, log)
        number = commands.submit(driver_script(described, driver))
        return Job(number, log_of(number, log), slurm)

    return drive


@pytest.fixture
def runs(tmp_path):
    """What the runs of a command have noted."""

    class Runs:
        path = tmp_path / "runs"

        def __call__(self) -> list[str]:
            return self.path.read_text().split() if self.path.exists() else []

        def until(self, *noted: str) -> None:
            code = (
                "import sys, time, pathlib\nwhile not pathlib.Path(sys.argv[1]).exists() or ("
                "pathlib.Path(sys.argv[1]).read_text().split() != sys.argv[2:]): time.sleep(0.05)"
            )
            command = [sys.executable, "-c", code, str(self.path), *noted]
            subprocess.run(command, check=True, timeout=60)

    return Runs()


def walltime_is_near(job: Job) -> None:
    job.slurm.run("scancel", "--signal=USR1", "--batch", str(job.number))


def script_of(job: Job) -> int:
    """Return the process of a job's script, which SLURM can't signal while it is away."""
    name = f"SLURM_JOB_ID={job.number}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes().split(b"\0")
            if b"slurm_script" in arguments and name in environment:
                return int(process.name)
    raise AssertionError(f"job {job.number} has no script that runs")


def test_a_command_whose_walltime_is_near_is_stopped_and_queued_again(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path))
    runs.until("begun")
    assert not exit_file(job.log).exists()
    walltime_is_near(job)
    job.until("COMPLETED")
    assert runs() == ["begun", "asked", "again"]
    assert job.told.count("isosr-job: begins") == 2
    assert "the walltime is over: queued again" in job.told
    assert "restart 1" in job.told
    assert job.code == "0"


def test_slurm_gives_notice_before_the_walltime(drive, runs):
    # It may do so up to a minute early.
    site = {"notice": 50, "restarts": 0}
    job = drive(sys.executable, "-c", STOPPING, str(runs.path), site=site, walltime="00:01:00")
    job.until("FAILED", seconds=90)
    assert runs() == ["begun", "asked"] or (runs(), job.code) == ([], "75 USR1")


def test_restarts_are_used_up_and_what_slurm_queues_again_does_not_count(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path), "always", site={"restarts": 1})
    runs.until("begun")
    job.slurm.run("scontrol", "requeue", str(job.number))
    runs.until("begun", "asked", "again")
    walltime_is_near(job)
    runs.until("begun", "asked", "again", "asked", "again")
    walltime_is_near(job)
    job.until("FAILED")
    assert "restart 2" in job.told
    assert "queued again 1 times, the most that the site file allows (restarts)" in job.told
    assert job.code == "75 USR1"


def test_a_refusal_to_queue_again_is_told(drive, runs, tmp_path):
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "scontrol"
    broken.write_text("#!/bin/sh\necho Requested operation is disabled >&2; exit 1\n")
    broken.chmod(0o755)
    site = {"setup": [f"PATH={tmp_path}/bin:$PATH"], "notice": 10}
    job = drive(sys.executable, "-c", STOPPING, str(runs.path), site=site)
    runs.until("begun")
    walltime_is_near(job)
    job.until("FAILED")
    assert "SLURM refuses to queue the job again (Requested operation is disabled)" in job.told


def test_a_controller_that_is_away_is_asked_again(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path))
    runs.until("begun")
    script = script_of(job)
    with job.slurm.killed():
        os.kill(script, signal.SIGUSR1)
        runs.until("begun", "asked")
        # The first attempt ends in vain within 10 s or so.
        time.sleep(12)
    job.until("COMPLETED")
    assert runs() == ["begun", "asked", "again"]
    assert job.told.count("queued again") == 1


def test_a_setup_does_not_end_what_follows(drive, runs, tmp_path):
    tidied = tmp_path / "tidied"
    options = ["set -euo pipefail", "IFS=,", "set -C"]
    traps = ["trap 'exit 3' ERR", "trap '' TERM", "trap 'exit 4' USR1"]
    site = {"setup": [*options, *traps, f"trap 'echo tidied >> {tidied}' EXIT"]}
    job = drive(sys.executable, "-c", STOPPING, str(runs.path), site=site)
    runs.until("begun")
    walltime_is_near(job)
    job.until("COMPLETED")
    assert runs() == ["begun", "asked", "again"]
    assert "isosr-job: the walltime is over: queued again" in job.told
    assert job.code == "0"
    assert "tidied" in tidied.read_text()


def test_the_shell_expands_the_python_of_a_site(drive, tmp_path):
    site = {"setup": [f"HERE={Path(sys.executable).parent}"], "python": "$HERE/python"}
    python = python_of(Site.model_validate({"cpu": RESOURCES, **site}))
    job = drive(python, "-c", "print('$HERE')", site=site)
    job.until("COMPLETED")
    assert job.told.endswith("$HERE\n")


@pytest.mark.parametrize(("script", "ended"), [("true", "0"), ("exit 3", "FAILED")])
def test_a_job_whose_file_is_not_seen_has_ended_as_slurm_says(slurm, tmp_path, script, ended):
    job = slurm.submit(script)
    slurm.wait_for(job, {"COMPLETED", "FAILED"})
    assert follow(job, tmp_path / "a.log", print, lambda: False) == ended


def test_a_cancelled_command_is_asked_to_stop_and_not_queued_again(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path))
    runs.until("begun")
    commands.cancel([job.number])
    job.until("CANCELLED")
    assert "asked" in runs()
    # SLURM signals the command too, and Python dies of what comes while it ends.
    assert job.code in ("75 TERM", "143 TERM")
    assert "queued again" not in job.told


def test_only_the_script_is_told_and_passes_it_on_once(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path))
    runs.until("begun")
    job.slurm.run("scancel", "--signal=TERM", "--batch", str(job.number))
    job.until("FAILED")
    assert runs() == ["begun", "asked"]
    assert job.code == "75 TERM"


@pytest.mark.parametrize(("signal", "ran"), [("USR1", ["begun"]), ("TERM", [])])
def test_a_signal_before_the_command_is_not_lost(drive, tmp_path, signal, ran):
    noted = tmp_path / "noted"
    flag = tmp_path / "flag"
    site = {"setup": [f"[ -e {flag} ] || {{ touch {flag}; kill -{signal} $$; }}"]}
    job = drive("sh", "-c", f"echo begun >> {noted}", site=site)
    job.until("COMPLETED" if ran else "FAILED")
    assert (noted.read_text().split() if noted.exists() else []) == ran
    assert job.told.count("isosr-job: begins") == 1 + len(ran)
    assert job.code == ("0" if ran else "75 TERM")


def test_a_command_that_dies_of_the_first_signal_is_queued_again(drive, tmp_path):
    # As the program does, until it has been loaded.
    flag = tmp_path / "flag"
    job = drive("sh", "-c", f"[ -e {flag} ] && exit 0; touch {flag}; exec sleep 100")
    while not flag.exists():
        pass
    walltime_is_near(job)
    job.until("COMPLETED")
    assert job.told.count("isosr-job: begins") == 2


@pytest.mark.parametrize("code", [1, 2, 75, 127, 143])
def test_the_exit_code_of_the_command_is_kept(drive, code):
    job = drive("sh", "-c", f"exit {code}")
    job.until("FAILED")
    assert job.code == str(code)
    assert job.slurm.field(job.number, "ExitCode") == f"{code}:0"


def test_a_setup_that_fails_is_kept_too(drive):
    job = drive("true", site={"setup": ["exit 9"]})
    job.until("FAILED")
    assert job.code == "9"


def test_a_preempted_command_is_stopped_and_queued_by_slurm(drive, runs):
    job = drive(sys.executable, "-c", STOPPING, str(runs.path))
    runs.until("begun")
    asked = ("--partition=high", "--nodes=2", "--exclusive", "--mem=0")
    other = job.slurm.submit("sleep 3", *asked)
    job.slurm.wait_for(other, "COMPLETED")
    job.until("COMPLETED")
    assert runs()[0] == "begun"
    assert runs()[-1] == "again"
    assert "walltime" not in job.told


def test_names_and_paths_are_taken_as_they_are(drive, tmp_path):
    name = "a b'c\"d $HOME %j#;&é"
    job = drive("printf", "%s|", "x y", "'$HOME'", name, name=name)
    job.until("COMPLETED")
    assert job.told.endswith(f"x y|'$HOME'|{name}|")
    assert job.code == "0"
    assert job.slurm.field(job.number, "JobName") == "job__of_a"


def test_a_driver_can_be_found_by_its_comment(drive):
    job = drive("sleep", "100")
    assert commands.find_jobs()[job.number].comment == "isosr:x:y"
    assert os.environ["SLURM_CONF"]
