"""Work that is led or waited for from a terminal, on a real SLURM: found again, and ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import yaml
from restoring import PACING, Pace, shown_by, site_file, until

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.scripts import JOBS
from isosr_pipeline.clusters import cluster_for, tag_of

SMALL = {"cores": 1, "memory": "2 GB", "walltime": "00:10:00", "workers": 1}
HELD = {**SMALL, "directives": ["--hold"]}


def live(ending: str) -> dict[int, commands.Job]:
    found = commands.find_jobs().items()
    return {n: job for n, job in found if job.comment.endswith(ending) and not job.ended}


def test_a_training_is_found_again_and_waited_for(
    slurm, runs, pace: Pace, make_store, tmp_path: Path, hangups
):
    voxels = np.random.default_rng(0).gamma(2, 300, (36, 40, 44)).astype(np.uint16)
    pace.slow(0.3)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {PACING} "$@"\n')
    python.chmod(0o755)
    site = site_file(tmp_path / "site.yaml", cpu=SMALL, setup=pace.setup, python=str(python))
    model = tmp_path / "model"
    options = ("--iterations", 5000, "--crop", 32, "--width", 4, "--planes", 2, "--device", "cpu")
    command = ("train", make_store(voxels).path, model, *options, "--cluster", site)
    first = runs(*command)
    until((model / "losses.csv").exists, "the job trains", first)
    (number,) = live(":train")
    # Its terminal is lost.
    first.send_signal(signal.SIGHUP)
    shown = shown_by(first)
    assert first.returncode == 75, shown
    assert f"the terminal is gone, and job {number} trains on" in shown
    again = runs(*command, "--resume")
    lines = [again.stdout.readline() for _ in range(3)]
    assert f"job {number} trains {model} already, and is waited for" in lines[0], lines
    assert list(live(":train")) == [number]
    other = runs(*command, "--overwrite")
    assert f"is being trained by job {number}; cancel it" in shown_by(other)
    assert other.returncode == 2

    again.send_signal(signal.SIGINT)
    shown = shown_by(again)
    assert again.returncode == 75, shown
    # It is known to have ended, so that --resume may follow at once.
    assert not live(":train"), shown
    assert not (model / "lock").exists()
    assert (model / "checkpoint.safetensors").exists()


def test_what_run_leaves_is_cancelled_with_the_brain(isosr, slurm, runs, tmp_path, capsys):
    site_file(tmp_path / "site.yaml", cpu=HELD)
    assert isosr("simulate", tmp_path / "a.tif", "--shape", 40) == 0
    brain = tmp_path / "brain.yaml"
    content = {"source": "a.tif", "output": "out/a", "cluster": "site.yaml"}
    brain.write_text(yaml.safe_dump({**content, "train": {"iterations": 2, "device": "cpu"}}))
    worker = left_by_run(runs, brain, ":worker")
    assert isosr("cancel", brain) == 0
    assert f"a: ended job {worker} (worker, pending)" in capsys.readouterr().out
    assert not live("")

    alone = ("--cluster", "local", "--workers", 1)
    assert isosr("run", brain, "--step", "convert", *alone) == 0
    train = left_by_run(runs, brain, ":train")
    assert isosr("submit", brain, "--site", tmp_path / "site.yaml") == 2
    told = capsys.readouterr().err
    assert f"the command run is at work on this brain (train is job {train})" in told
    assert isosr("cancel", brain) == 0
    assert f"a: ended job {train} (train, pending)" in capsys.readouterr().out
    assert not live("")


def test_cancel_stops_a_run_that_would_replace_what_is_cancelled(
    isosr, slurm, runs, tmp_path, capsys
):
    site_file(tmp_path / "site.yaml", cpu=HELD)
    assert isosr("simulate", tmp_path / "a.tif", "--shape", 40) == 0
    brain = tmp_path / "brain.yaml"
    content = {"source": "a.tif", "output": "out/a", "cluster": "site.yaml"}
    brain.write_text(yaml.safe_dump({**content, "train": {"iterations": 2, "device": "cpu"}}))
    run = runs("run", brain)
    until(lambda: bool(live(":worker")), "a job waits", run)
    assert isosr("cancel", brain) == 0
    told = capsys.readouterr().out
    assert f"a: process {run.pid}, which leads its jobs, is asked to stop" in told
    assert not live("")
    shown = shown_by(run)
    assert run.returncode == 75, shown
    assert not live("")
    assert not list(tmp_path.glob("out/a/.leader"))


def left_by_run(runs, brain: Path, ending: str) -> int:
    """Return the job that waits once its run has been killed."""
    leading = runs("run", brain)
    until(lambda: bool(live(ending)), "a job waits", leading)
    leading.kill()
    leading.wait()
    (number,) = live(ending)
    return number


def test_a_driver_ends_what_its_killed_run_has_left(slurm, tmp_path, monkeypatch):
    logs, site = tmp_path / "logs", site_file(tmp_path / "site.yaml", cpu=SMALL)
    logs.mkdir()
    key = logs / ".credentials-left"
    key.mkdir()

    def worker(tag: str, name: str) -> int:
        job = slurm.submit("sleep 300", f"--comment={tag}:worker", f"--job-name={name}", "--hold")
        return int(job)

    tag = tag_of(tmp_path)
    left = worker(tag, "convert-a-workers")
    others = {worker("isosr:other", "convert-a-workers")}
    monkeypatch.setenv(JOBS, tag)
    monkeypatch.setenv("SLURM_JOB_NAME", "convert-a")
    said: list[str] = []
    with cluster_for("cpu", str(site), 1, logs=logs, say=said.append)() as client:
        assert client.submit(os.getpid).result() != os.getpid()
        found = commands.find_jobs()
        assert found[left].state == "CANCELLED"
        assert not any(found[job].ended for job in others)
        assert not key.exists()
    assert "cancelled 1 jobs of workers that an earlier run has left" in said

    # Somebody who leads this brain's work from a terminal keeps jobs and keys.
    key.mkdir()
    others.add(worker(tag, "isosr-workers"))
    with cluster_for("cpu", str(site), 1, logs=logs)():
        found = commands.find_jobs()
        assert not any(found[job].ended for job in others)
        assert key.exists()
