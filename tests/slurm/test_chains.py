"""Chains of brains on a real SLURM; small stand-ins take the steps, but for one brain's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from isosr_cluster.slurm import commands
from isosr_pipeline.batch.chains import Terms
from isosr_pipeline.batch.entries import Entry, read_entries
from isosr_pipeline.batch.records import locked, read_record
from isosr_pipeline.batch.reporting import report_brain
from isosr_pipeline.batch.submitting import submit_batch
from isosr_pipeline.site_files import read_site

ELSEWHERE: str | None = None
"""Where real work of the jobs runs, such as ``"local"``; None: in workers that are jobs."""

STEPS = ["convert", "train", "restore", "evaluate"]
JOB = {"cores": 1, "memory": "50 MB", "walltime": "00:10:00"}

STAND_IN = """#!{python}
import json, os, pathlib, signal, sys, time
command, brain, step = sys.argv[3], pathlib.Path(sys.argv[4]), sys.argv[6]
out = pathlib.Path(json.loads(brain.read_text())["output"])
if command == "report":
    with open("{noted}", "a") as file:
        print("reports", out.name, pathlib.Path(step).name, file=file)
    sys.exit()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with open("{noted}", "a") as file:
    print("begins", out.name, step, os.environ["ISOSR_JOBS"], file=file, flush=True)
while (out.parent / "hold").exists() or (out / "hold").exists():
    time.sleep(0.05)
if (out.parent / f"{{out.name}}-{{step}}-fails").exists():
    print("isosr-pipeline: the slice is torn", file=sys.stderr)
    sys.exit(1)
with open("{noted}", "a") as file:
    print("ends", out.name, step, file=file, flush=True)
"""
"""In place of Python: notes which step of which brain begins and ends, and what is reported."""


@pytest.fixture
def site(tmp_path):
    """A site whose jobs run stand-ins."""
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable, noted=tmp_path / "noted"))
    python.chmod(0o755)
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"cpu": JOB, "driver": JOB, "python": str(python)}))
    return path


@pytest.fixture
def brain(tmp_path, slurm) -> Callable[..., Path]:
    """Write a brain file with a source that is there."""
    (tmp_path / "a.tif").touch()

    def write(name: str, **keys: object) -> Path:
        train = {"iterations": 5, "device": "cpu"}
        path = tmp_path / f"{name}.yaml"
        content = {"source": "a.tif", "output": f"out/{name}", "train": train, **keys}
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def hold(tmp_path) -> Path:
    """While it is there, stand-ins don't end."""
    path = tmp_path / "out" / "hold"
    path.parent.mkdir()
    path.touch()
    return path


def entry_of(file: Path) -> Entry:
    return read_entries([file], None, None)[0]


def jobs_of(file: Path) -> dict[str, commands.Job]:
    """Return the jobs of a brain that have not ended, by what their comments say."""
    tag = entry_of(file).tag
    found = [job for job in commands.find_jobs().values() if job.comment.startswith(f"{tag}:")]
    assert len({job.comment for job in found if not job.ended}) == len(
        [job for job in found if not job.ended]
    )
    return {job.comment.rpartition(":")[2]: job for job in found if not job.ended}


def wait_for_end(*files: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while any(jobs_of(file) for file in files):
        assert time.monotonic() < until, commands.find_jobs()
        time.sleep(0.2)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def noted(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "noted"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_brain_goes_all_the_way_in_its_jobs(isosr, slurm, tmp_path, capsys):
    assert isosr("simulate", tmp_path / "a.tif", "--shape", 40) == 0
    train = {"width": 4, "crop": 32, "planes": 2, "iterations": 2, "device": "cpu"}
    file = tmp_path / "brain.yaml"
    content = {"source": "${PLACE}/a.tif", "output": "out/a", "train": train}
    file.write_text(yaml.safe_dump(content))
    site = tmp_path / "site.yaml"
    job = {**JOB, "memory": "2 GB"}
    site.write_text(yaml.safe_dump({"cpu": job, "driver": job, "interface": "lo"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLACE", str(tmp_path))
        entry = entry_of(file)
        terms = Terms(read_site(site), site, workers=1, cluster=ELSEWHERE)
        assert submit_batch([entry], terms, print) == 4
    # Its jobs mind neither later edits nor the environment.
    file.write_text(yaml.safe_dump({**content, "source": "gone.tif"}))
    site.unlink()
    wait_for_end(file, seconds=400)
    report = report_brain(entry, commands.find_jobs())
    told = "\n".join(step.job.log.read_text() for step in report.steps if step.job)
    assert report.state == "complete", told
    assert {step.job.state for step in report.steps if step.job} == {"done"}, told
    assert submit_batch([entry], terms, print) == 0
    assert "a: all steps are complete" in capsys.readouterr().out
    assert isosr("status", file) == 0
    assert capsys.readouterr().out.count("complete") == 4

    # What is there is not done again.
    entry.brain.evaluation.unlink()
    assert submit_batch([entry], terms, print) == 1
    wait_for_end(file)
    assert entry.brain.evaluation.is_file()


def test_each_job_waits_for_the_one_before_and_none_is_submitted_twice(
    isosr, brain, site, hold, tmp_path, capsys
):
    file = brain("a")
    assert isosr("submit", file, "--site", site) == 0
    shown = capsys.readouterr().out
    assert "4 jobs submitted" in shown
    live = jobs_of(file)
    assert sorted(live) == sorted(STEPS)
    record = read_record(tmp_path / "out" / "a")
    assert [(job.step, job.id) for job in record.jobs] == [(s, live[s].id) for s in STEPS]
    frozen = (tmp_path / "out/a/jobs/brain.yaml").read_text()

    brain("a", workers=3)
    assert isosr("submit", file, "--site", site) == 0
    shown = capsys.readouterr().out
    assert f"a: in flight already (convert is job {live['convert'].id}, " in shown
    assert "0 jobs submitted" in shown
    assert {s: j.id for s, j in jobs_of(file).items()} == {s: j.id for s, j in live.items()}
    assert (tmp_path / "out/a/jobs/brain.yaml").read_text() == frozen

    hold.unlink()
    wait_for_end(file)
    tag = entry_of(file).tag
    order = [[kind, "a", step] for step in STEPS for kind in ("begins", "ends")]
    order.append(["reports", "a", "index.html"])
    assert [line[:3] for line in noted(tmp_path)] == order
    assert {line[3] for line in noted(tmp_path) if line[0] == "begins"} == {tag}


def test_a_submission_that_is_killed_is_completed(isosr, brain, site, hold, tmp_path, capsys):
    file = brain("a")
    # A submission that is killed when SLURM has taken a job, and before that is written down.
    folder = tmp_path / "bin"
    folder.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True)
    (folder / "sbatch").write_text(f"""#!/bin/bash
{real.stdout.strip()} "$@" || exit
case "$*" in *--test-only*) exit ;; esac
echo >> {tmp_path}/count
if [ $(wc -l < {tmp_path}/count) = 2 ]; then kill -KILL $PPID; fi
""")
    (folder / "sbatch").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "isosr_pipeline", "submit", file, "--site", site]
    assert subprocess.run(command, env=environment).returncode == -9
    before = jobs_of(file)
    assert sorted(before) == ["convert", "train"]
    assert [job.step for job in read_record(tmp_path / "out" / "a").jobs] == ["convert"]

    assert isosr("submit", file, "--site", site) == 0
    assert "2 jobs submitted" in capsys.readouterr().out
    after = jobs_of(file)
    assert sorted(after) == sorted(STEPS)
    assert {step: after[step].id for step in before} == {s: j.id for s, j in before.items()}
    record = read_record(tmp_path / "out" / "a")
    assert {job.step: job.id for job in record.jobs} == {s: j.id for s, j in after.items()}
    hold.unlink()
    wait_for_end(file)
    assert [line[2] for line in noted(tmp_path) if line[0] == "ends"] == STEPS


def test_two_submissions_at_the_same_time(isosr, brain, site, tmp_path, capsys):
    file = brain("a")
    with locked(tmp_path / "out" / "a"):
        assert isosr("submit", file, "--site", site) == 2
        assert "another process submits or ends the jobs of this brain" in capsys.readouterr().err
    assert not jobs_of(file)


def test_a_site_that_slurm_refuses_costs_nothing(isosr, brain, site, tmp_path, capsys):
    described = yaml.safe_load(site.read_text())
    described["cpu"] = {**JOB, "partition": "nowhere"}
    site.write_text(yaml.safe_dump(described))
    file = brain("a")
    assert isosr("submit", file, "--site", site) == 1
    told = capsys.readouterr().err
    assert "nothing is submitted: the job for train" in told
    assert "invalid partition specified: nowhere" in told
    assert not (tmp_path / "out").exists()
    assert not jobs_of(file)


def test_a_broken_brain_keeps_the_whole_batch_from_being_submitted(isosr, brain, site, capsys):
    good, bad = brain("a"), brain("b", source="gone.tif")
    assert isosr("submit", good, bad, "--site", site) == 2
    assert f"{bad}: source: " in capsys.readouterr().err
    assert not jobs_of(good)


def test_a_failure_ends_its_own_chain_and_gives_its_place_to_the_next(
    isosr, brain, site, tmp_path, capsys
):
    files = [brain("a"), brain("b")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-train-fails").touch()
    assert isosr("submit", *files, "--site", site, "--max-brains", 1) == 0
    wait_for_end(*files)
    begun = [line[1:3] for line in noted(tmp_path) if line[0] == "begins"]
    assert begun == [["a", "convert"], ["a", "train"], *(["b", step] for step in STEPS)]
    assert [line[1] for line in noted(tmp_path) if line[0] == "reports"] == ["a", "b"]

    capsys.readouterr()
    assert isosr("status", *files, "--json") == 0
    first, _second = json.loads(capsys.readouterr().out)
    jobs = {step["step"]: step["job"] for step in first["steps"]}
    assert (jobs["convert"]["state"], jobs["train"]["state"]) == ("done", "failed")
    assert (jobs["train"]["exit_code"], jobs["train"]["error"]) == (1, "the slice is torn")
    assert jobs["restore"]["state"] == "cancelled"
    assert jobs["restore"]["reason"] == "an earlier step has failed"


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_brains_are_in_flight_than_may_be(isosr, brain, site, tmp_path, most):
    files = [brain(name) for name in "abcd"]
    assert isosr("submit", files[0], "--site", site) == 0
    assert isosr("submit", *files, "--site", site, "--max-brains", most) == 0
    wait_for_end(*files, seconds=400)
    lines = [line for line in noted(tmp_path) if line[0] != "reports"]
    flying: set[str] = set()
    largest = 0
    for kind, name, step, *_ in lines:
        if kind == "begins":
            flying.add(name)
        elif step == "evaluate":
            flying.remove(name)
        largest = max(largest, len(flying))
    assert largest <= most
    assert len(lines) == 2 * 4 * len(files)


def test_a_brain_that_is_cancelled_brings_no_other_forward(isosr, brain, site, hold, tmp_path):
    first, second, third = (brain(name) for name in "abc")
    assert isosr("submit", first, second, third, "--site", site, "--max-brains", 1) == 0
    wait_for(lambda: len(noted(tmp_path)) == 1)
    assert isosr("cancel", second) == 0
    assert jobs_of(third)["convert"].after == (jobs_of(first)["evaluate"].id,)
    # Nor does one that is submitted later.
    assert isosr("submit", second, "--site", site, "--max-brains", 1) == 0
    ends = {jobs_of(one)["evaluate"].id for one in (first, third)}
    assert set(jobs_of(second)["convert"].after) == ends
    assert isosr("cancel", first, second, third) == 0


def test_cancel_ends_the_jobs_of_a_brain_and_no_others(
    isosr, brain, site, hold, slurm, tmp_path, capsys
):
    mine, other, none = brain("a"), brain("b"), brain("c")
    assert isosr("submit", mine, other, "--site", site) == 0
    tag = entry_of(mine).tag
    worker = slurm.submit("sleep 300", f"--comment={tag}:worker")
    stranger = slurm.submit("sleep 300", f"--comment=x{tag}:worker")
    # A job that is cancelled while it is being launched takes SLURM minutes to end.
    wait_for(lambda: len(noted(tmp_path)) == 2)
    before = jobs_of(other)
    capsys.readouterr()
    assert isosr("cancel", mine, none) == 0
    shown = capsys.readouterr().out
    assert f"a: ended job {worker} (worker, " in shown
    assert shown.count("a: ended job") == 5
    assert "c: no jobs to end" in shown
    assert not jobs_of(mine)
    assert {s: j.id for s, j in jobs_of(other).items()} == {s: j.id for s, j in before.items()}
    assert not commands.find_jobs()[stranger].ended
    assert isosr("status", mine) == 0
    assert "convert    cancelled" in capsys.readouterr().out
    assert isosr("cancel", mine) == 0
    assert isosr("submit", mine, "--site", site) == 0
    assert sorted(jobs_of(mine)) == sorted(STEPS)
    wait_for(lambda: len(noted(tmp_path)) == 3)
    assert isosr("cancel", mine, other) == 0
    assert not {**jobs_of(mine), **jobs_of(other)}


def test_cancel_ends_a_job_that_comes_back(isosr, brain, site, hold, tmp_path):
    file = brain("a")
    described = yaml.safe_load(site.read_text())
    # As if its walltime were near just when it is cancelled.
    site.write_text(yaml.safe_dump({**described, "setup": ["trap 'asked=USR1' TERM"]}))
    assert isosr("submit", file, "--site", site) == 0
    wait_for(lambda: bool(noted(tmp_path)))
    assert isosr("cancel", file) == 0
    time.sleep(1)
    assert not jobs_of(file)


def test_status_tells_what_slurm_says(isosr, brain, site, hold, slurm, tmp_path, capsys):
    file = brain("a")
    assert isosr("submit", file, "--site", site) == 0
    number = jobs_of(file)["convert"].id
    wait_for(lambda: bool(noted(tmp_path)))

    def status() -> str:
        capsys.readouterr()
        assert isosr("status", file) == 0
        return capsys.readouterr().out

    shown = status()
    assert "convert    running on n" in shown
    assert f"train      waiting: Dependency (job {number + 1})" in shown

    slurm.run("scontrol", "requeue", str(number))
    wait_for(lambda: "convert    queued again" in status())
    wait_for(lambda: "convert    running on n" in status())

    (tmp_path / "out" / "a-convert-fails").touch()
    hold.unlink()
    wait_for_end(file)
    shown = status()
    assert f"convert    failed with exit code 1: NonZeroExitCode (job {number})" in shown
    assert "error      the slice is torn" in shown
    assert f"log        {tmp_path}/out/a/logs/convert-{number}.log" in shown
    assert "restore    cancelled: an earlier step has failed" in shown

    slurm.forget_jobs()
    shown = status()
    assert f"convert    failed with exit code 1 (job {number})" in shown
    assert "error      the slice is torn" in shown
    assert "restore    unknown: SLURM does not know it" in shown
