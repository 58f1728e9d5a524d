"""A plan for a real SLURM site."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tifffile
import yaml

from isosr_cluster.slurm import commands
from isosr_pipeline.simulation.volume import Acquisition, simulate

JOB = {"cores": 2, "memory": "2 GB", "walltime": "00:10:00"}


def test_a_plan_asks_one_job_of_a_site_and_reckons_with_all(slurm, tmp_path):
    image = simulate("neurites", (32, 48, 48), Acquisition(), seed=1).image
    tifffile.imwrite(tmp_path / "a.tif", image)
    site = {"cpu": {**JOB, "processes": 2, "workers": 5}, "driver": JOB}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    brain = {
        "source": "a.tif",
        "output": "out",
        "cluster": "site.yaml",
        "convert": {"voxel_size": [1, 1, 1], "chunk": 16, "shard": 16},
        "train": {"width": 4, "crop": 32, "iterations": 1},
        "restore": {"block": 16, "chunk": 16, "shard": 16},
    }
    (tmp_path / "brain.yaml").write_text(yaml.safe_dump(brain))
    command = [sys.executable, "-m", "isosr_pipeline", "plan", "brain.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["restore"]
    assert found["workers"] == 6
    assert found["memory_available"] == 2**30
    voxels = 32 * 48 * 48
    assert found["seconds"] == pytest.approx(voxels / (6 * found["rate"]))
    assert not (tmp_path / "out").exists()
    workers = [job for job in commands.find_jobs().values() if job.comment == "isosr:worker"]
    # One job for each kind of work: to convert, and to restore.
    assert len(workers) == 2
    assert all(job.ended or job.state == "COMPLETING" for job in workers)
