"""What workers know of the time that they have left."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from distributed import Client, LocalCluster

from isosr_cluster.asking import ask_all
from isosr_cluster.draining import ENDS_AT, Walltime, walltime
from isosr_cluster.runner import run_tasks
from isosr_cluster.slurm.jobs import job_options
from isosr_cluster.slurm.site import Site

SECONDS = 0.3


def _longest() -> float:
    return walltime.longest


def test_a_worker_that_is_started_anew_knows_how_long_tasks_take():
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": False}
    preload = ["isosr_cluster.slurm.remembering"]
    with (
        LocalCluster(n_workers=1, preload_nanny=preload, **options) as cluster,
        Client(cluster) as client,
    ):
        assert ask_all(client, _longest) == [0.0]
        assert [o.error for o in run_tasks(client, time.sleep, [SECONDS, 0.0])] == [None, None]
        (first,) = ask_all(client, os.getpid)
        os.kill(first, 9)
        while (now := ask_all(client, os.getpid)) == [first]:
            time.sleep(0.05)
        assert now != [first]
        assert SECONDS <= ask_all(client, _longest)[0] < 60


def test_nothing_is_begun_that_takes_longer_than_is_left(tmp_path):
    kept = tmp_path / "longest"
    kept.write_text("100.0")
    begun = []
    with Walltime(time.time() + 200, kept).task():
        begun.append(1)
    # Outside of a worker nobody can leave.
    with pytest.raises(ValueError, match="worker"), Walltime(time.time() + 100, kept).task():
        begun.append(2)
    assert begun == [1]
    with Walltime(time.time() + 100, tmp_path / "none").task():
        begun.append(3)
    assert begun == [1, 3]


def test_a_job_ends_when_slurm_says_so_and_else_after_its_walltime(tmp_path):
    site = Site.model_validate({"cpu": {"cores": 1, "memory": "1 GB", "walltime": "00:10:00"}})
    lines = job_options(site, site.cpu, 1, "name", "comment", tmp_path)["job_script_prologue"]
    script = "\n".join([*lines, f'echo "${ENDS_AT}"'])

    def ends_at(**told: str) -> int:
        environment = {"PATH": os.environ["PATH"], **told}
        command = ["/bin/bash", "-c", script]
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    assert ends_at(SLURM_JOB_END_TIME="1900000000") == 1_900_000_000
    before = int(time.time())
    assert before + 600 <= ends_at() <= time.time() + 600
