"""The site files of the examples can be used as they stand, but for the names in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from isosr_cluster.slurm.jobs import WorkerJob, job_options
from isosr_cluster.slurm.site import Site, Workers
from isosr_pipeline.site_files import read_site

SITES = sorted((Path(__file__).parents[2] / "examples" / "sites").glob("*.yaml"))
STEPS = 4


def is_bash(script: str) -> bool:
    done = subprocess.run(["/bin/bash", "-n"], input=script, text=True, capture_output=True)
    return done.returncode == 0 and not done.stderr


@pytest.fixture
def no_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")


def test_there_are_some():
    assert {path.stem for path in SITES} >= {
        "gpu-partition",
        "preemptible",
        "mig-typed-gpus",
        "cpu-only",
    }


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_drivers_scripts_are_made_of_it(isosr, no_slurm, tmp_path, capsys, path):
    (tmp_path / "a.tif").touch()
    brain = {"source": "a.tif", "output": "out", "train": {"iterations": 5}}
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    assert isosr("submit", tmp_path / "brain.yaml", "--site", path, "--dry-run") == 0
    _, *scripts = capsys.readouterr().out.split("#!/bin/bash\n")
    assert len(scripts) == STEPS
    assert all(map(is_bash, scripts))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_workers_scripts_are_made_of_it(tmp_path, path):
    site = read_site(path)
    for kind in ("cpu", "gpu"):
        jobs = site.workers(kind)
        if jobs is None:
            continue
        options = job_options(site, jobs, 2, "isosr-workers", "isosr:worker", tmp_path)
        # The network is that of the site, not of this machine.
        options["interface"] = None
        job = WorkerJob("tcp://10.0.0.1:8786", "worker-0", **options)
        assert is_bash(job.job_script())
        assert f"--cpus-per-task={jobs.cores}" in job.job_script()


def test_every_key_is_explained_in_one_of_them():
    text = "\n".join(path.read_text() for path in SITES)
    keys = {*Site.model_fields, *Workers.model_fields}
    # A comment in its line, or one above the first line that it is followed by.
    explained = set(re.findall(r"^[# ]*(\w+):.*? # ", text, re.MULTILINE))
    assert keys <= explained
