"""Sites that are described wrongly: an error soon, in words, and little is asked of SLURM."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from faults import assert_identical
from harness import CPUS, GPUS, NODES
from restoring import JOB, jobs_of_workers, restoring, shown_by, site_file

from isosr_cluster.errors import ClusterConfigError, SlurmError
from isosr_cluster.slurm import commands, workers
from isosr_cluster.slurm.losses import MOST_STILLBORN
from isosr_cluster.slurm.site import Site
from isosr_cluster.slurm.workers import open_slurm

MOST_JOBS = MOST_STILLBORN + 2
FOREIGN = "/usr/bin/python3"


def test_workers_that_can_not_start_are_an_error_after_a_few_jobs(
    slurm, stage, pace, runs, tmp_path
):
    """An environment that is broken on all nodes, in several ways; and on one only."""
    broken = {
        "no python": ({"python": "/usr/bin/false"}, "has left nothing in"),
        "failing setup": ({"setup": ["echo no module here >&2", "exit 3"]}, "no module here"),
        "foreign python": ({"python": FOREIGN, "setup": ["unset PYTHONPATH"]}, "No module named"),
    }
    begun = {}
    for name, (described, reason) in broken.items():
        folder = tmp_path / name
        folder.mkdir()
        site = site_file(folder / "site.yaml", **described)
        begun[name] = runs(*restoring(stage, folder / "out.zarr", site), folder=folder), reason
    setup = ['if [ "$SLURMD_NODENAME" = n1 ]; then echo gone; exit 3; fi', *pace.setup]
    pace.slow(0.5)
    site = site_file(tmp_path / "site.yaml", setup=setup)
    on_one = runs(*restoring(stage, tmp_path / "out.zarr", site))

    for name, (run, reason) in begun.items():
        shown = shown_by(run)
        assert run.returncode == 1, shown
        assert re.search(r"workers do not start: \d jobs have ended before a worker", shown), shown
        assert reason in shown
        assert list_of(tmp_path / name) == ["isosr-logs", "site.yaml"]
        logs = list((tmp_path / name / "isosr-logs").iterdir())
        assert MOST_STILLBORN <= len(logs) <= MOST_JOBS

    shown = shown_by(on_one)
    assert on_one.returncode == 0, shown
    assert "n1 gets no more jobs: several have ended there before a worker began" in shown
    assert_identical(tmp_path / "out.zarr", stage.undisturbed)
    assert not jobs_of_workers()
    nodes = [job.node for job in commands.find_jobs(pace.jobs()).values()]
    assert set(nodes) == {"n2"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"memory": "1 TB"}, "Requested node configuration is not available"),
        ({"cores": 99}, "Requested node configuration is not available"),
        ({"directives": ["--gres=gpu:9"]}, "Requested node configuration is not available"),
    ],
    ids=["partition", "memory", "cores", "gpus"],
)
def test_what_slurm_would_not_take_is_refused_at_once_in_its_words(
    isosr, slurm, stage, tmp_path, monkeypatch, capsys, asked, words
):
    monkeypatch.chdir(tmp_path)
    site = site_file(tmp_path / "site.yaml", cpu={**JOB, **asked})
    before = commands.find_jobs()
    assert isosr(*restoring(stage, tmp_path / "out.zarr", site)) == 1
    assert words in capsys.readouterr().err
    assert list_of(tmp_path) == ["site.yaml"]
    assert commands.find_jobs().keys() == before.keys()


def test_a_walltime_that_no_job_may_have_is_said_and_not_waited_for(
    isosr, slurm, stage, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    slurm.run("scontrol", "update", "PartitionName=high", "MaxTime=5")
    try:
        assert commands.time_limit("high") == 300
        assert commands.time_limit(None) is None
        with pytest.raises(SlurmError, match="no partition nowhere"):
            commands.time_limit("nowhere")
        assert commands.time_limit("high,debug") is None
        _assert_refused_at_once(isosr, stage, tmp_path, capsys)
        site = site_file(tmp_path / "site.yaml", cpu={**JOB, "partition": "high"})
        assert isosr(*restoring(stage, tmp_path / "out.zarr", site)) == 1
        assert "never begin: PartitionTimeLimit, says SLURM of job" in capsys.readouterr().err
        assert isosr("site", "check", site) == 1
        shown = capsys.readouterr().out
        assert "cpu.walltime is 0-00:10:00, and the partition allows 0-00:05:00" in shown
    finally:
        slurm.run("scontrol", "update", "PartitionName=high", "MaxTime=INFINITE")
    assert not jobs_of_workers()


def _assert_refused_at_once(isosr, stage, folder, capsys) -> None:
    """Jobs that train or lead, and would wait for ever, are not submitted."""
    short = {key: value for key, value in JOB.items() if key != "workers"}
    long = {**short, "partition": "high"}
    too_long = "walltime is 0-00:10:00, and the partition allows 0-00:05:00"
    site = site_file(folder / "site.yaml", cpu=long)
    before = commands.find_jobs().keys()
    training = ("--iterations", 1, "--device", "cpu", "--cluster", site)
    assert isosr("train", stage.cube, folder / "model", *training) == 1
    assert f"cpu.{too_long}" in capsys.readouterr().err
    brain = folder / "brain.yaml"
    train = {"iterations": 1, "device": "cpu"}
    brain.write_text(yaml.safe_dump({"source": str(stage.cube), "output": "out", "train": train}))
    for described, section in (
        ({"cpu": long, "driver": short}, "cpu"),
        ({"driver": long}, "driver"),
    ):
        site_file(site, **described)
        assert isosr("submit", brain, "--site", site) == 1
        shown = capsys.readouterr().err
        assert f"nothing is submitted: the job for convert of {brain}" in shown
        assert f"{section}.{too_long}" in shown
    assert list_of(folder) == ["brain.yaml", "site.yaml"]
    assert commands.find_jobs().keys() == before


def test_folders_may_have_any_name(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / 'a b"; touch PWNED; $HOME 50%j'
    site = Site.model_validate({"cpu": JOB, "interface": "lo", "notice": 10})
    with open_slurm(site, "cpu", 1, logs=logs) as client:
        (folder,) = client.run(os.getcwd).values()
        assert len(list(logs.glob(".credentials-*"))) == 1
    assert not (Path(folder) / "PWNED").exists()
    (log,) = logs.iterdir()
    assert log.name.startswith("isosr-workers-")


def test_an_interface_that_is_not_there_is_named(slurm, tmp_path):
    site = Site.model_validate({"cpu": JOB, "interface": "nowhere0", "notice": 10})
    with (
        pytest.raises(ClusterConfigError, match=r"nowhere0.*; see interface in the site file"),
        open_slurm(site, "cpu", 1, logs=tmp_path / "logs"),
    ):
        pass


def test_a_driver_waits_for_nodes_that_are_down(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_CHECKS", 1.0)
    site = Site.model_validate({"cpu": JOB, "interface": "lo", "notice": 10})
    told = []

    def say(text: str) -> None:
        told.append(text)
        if text.startswith("waiting for SLURM to take jobs"):
            slurm.resume(NODES[0])

    for node in NODES:
        slurm.down(node)
    with open_slurm(site, "cpu", 1, logs=tmp_path / "logs", say=say) as client:
        assert len(client.scheduler_info()["workers"]) == 1
    assert "Requested node configuration is not available" in told[0]


def test_each_process_of_a_job_sees_a_gpu_of_its_own(slurm, tmp_path):
    job = {**JOB, "gpus": GPUS, "cores": CPUS}
    site = Site.model_validate({"gpu": job, "interface": "lo", "notice": 10})
    with open_slurm(site, "gpu", 2 * GPUS, logs=tmp_path / "logs") as client:
        client.wait_for_workers(2 * GPUS, timeout=120)
        jobs = client.run(os.getenv, "SLURM_JOB_ID")
        gpus = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
    numbers = sorted(set(jobs.values()))
    seen = sorted((jobs[worker], gpu) for worker, gpu in gpus.items())
    assert seen == [(number, gpu) for number in numbers for gpu in ("0", "1")]
    assert len(numbers) == 2


def test_a_site_check_says_what_is_wrong(slurm, runs, tmp_path):
    """A site that is right, and three that aren't; an output folder that is and isn't there."""
    gpu = {**JOB, "gpus": 1}
    sites: dict[str, tuple[dict[str, object], str]] = {
        "right": ({}, "cpu     ok     1 worker on "),
        "no scratch": ({"scratch": "/proc/here"}, "scratch /proc/here can't be made or written to"),
        "gpu": ({"cpu": None, "gpu": gpu}, "gpu     wrong  PyTorch finds no GPU there"),
    }
    begun = {}
    for name, (described, words) in sites.items():
        folder = tmp_path / name
        folder.mkdir()
        site = site_file(folder / "site.yaml", **described)
        begun[name] = runs("site", "check", site, "--output", folder, folder=folder), words
    site = tmp_path / "right" / "site.yaml"
    nowhere = runs("site", "check", site, "--output", "/proc/there")
    partition = site_file(tmp_path / "site.yaml", cpu={**JOB, "partition": "nowhere"})
    refused = runs("site", "check", partition)

    for name, (run, words) in begun.items():
        shown = shown_by(run)
        assert words in shown, shown
        assert run.returncode == (0 if name == "right" else 1), shown
        assert "Traceback" not in shown.partition("wrong")[2], shown
        assert list_of(tmp_path / name) == ["isosr-logs", "site.yaml"]
    shown = shown_by(nowhere)
    assert nowhere.returncode == 2, shown
    assert "/proc/there" in shown
    shown = shown_by(refused)
    assert refused.returncode == 1, shown
    assert shown.count("invalid partition specified: nowhere") == 2, shown
    assert not jobs_of_workers()


def list_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
