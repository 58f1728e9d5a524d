"""A plan for a real SLURM site."""

from __future__ import annotations

import tifffile
import yaml

from isosr_cluster.slurm import commands
from isosr_pipeline.brain import read_brain
from isosr_pipeline.simulation import Acquisition, simulate
from isosr_pipeline.steps.plan import plan

JOB = {"cores": 2, "memory": "2 GB", "walltime": "00:10:00"}


def test_a_plan_asks_one_job_of_a_site_and_reckons_with_all(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
    found = plan(read_brain(tmp_path / "brain.yaml"))
    assert found.restore.workers == 6
    assert found.restore.memory_available == 2**30
    voxels = 32 * 48 * 48
    assert abs(found.restore.seconds - voxels / (6 * found.restore.rate)) < 1e-6
    assert not (tmp_path / "out").exists()
    workers = [job for job in commands.find_jobs().values() if job.comment == "isosr:worker"]
    # One job for each kind of work: to convert, and to restore.
    assert len(workers) == 2
    assert all(job.ended or job.state == "COMPLETING" for job in workers)
