"""Who leads the work on a brain, and what others do who find that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from isosr_pipeline.errors import BusyError
from isosr_pipeline.leading import FILE, find_leader, leading

LEAD = """
import pathlib, sys, time
from isosr_pipeline.leading import leading
with leading(pathlib.Path(sys.argv[1])):
    time.sleep(600)
"""


@pytest.fixture
def brain(tmp_path, monkeypatch) -> Path:
    """A brain file; no SLURM of this machine's is there."""
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / "a.tif").touch()
    path = tmp_path / "brain.yaml"
    content = {"source": "a.tif", "output": "out", "train": {"iterations": 5}}
    path.write_text(yaml.safe_dump(content))
    return path


def test_who_leads_is_found_while_it_does(tmp_path):
    out = tmp_path / "out"
    assert find_leader(out) is None
    with leading(out):
        found = find_leader(out)
        assert found is not None
        assert found.process().pid == os.getpid()
        expected = f"process {os.getpid()} on .* leads the work on this brain"
        with pytest.raises(BusyError, match=expected), leading(out):
            pass
    # Nothing is left, not even the folder that was made for it.
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_leader_leaves_is_none(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", LEAD, tmp_path])
    while not find_leader(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert (tmp_path / FILE).exists()
    assert find_leader(tmp_path) is None
    with leading(tmp_path):
        assert find_leader(tmp_path).pid == os.getpid()


def test_cancel_asks_the_process_that_leads_to_stop(isosr, brain, tmp_path, capsys):
    process = subprocess.Popen([sys.executable, "-c", LEAD, tmp_path / "out"])
    while not (found := find_leader(tmp_path / "out")) or not found.pid:
        assert process.poll() is None
        time.sleep(0.05)
    # There is no SLURM to ask for jobs.
    assert isosr("cancel", brain) == 1
    assert f"out: process {process.pid}, which leads its jobs, is asked to stop" in (
        capsys.readouterr().out
    )
    assert process.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"began": 1.0}, None])
def test_cancel_names_a_process_that_it_cannot_stop(isosr, brain, tmp_path, capsys, other):
    with leading(tmp_path / "out"):
        file = tmp_path / "out" / FILE
        said = {**json.loads(file.read_text()), **other} if other else {}
        file.write_text(json.dumps(said))
        assert isosr("cancel", brain) == 2
        shown = capsys.readouterr().err
    who = f"process {os.getpid()} on {said['host']}" if other else "a process"
    assert f"{brain}: {who} leads the work on this brain" in shown
    assert "stop it where it runs" in shown


def test_a_brain_that_is_led_is_not_submitted(isosr, brain, tmp_path, capsys):
    site = tmp_path / "site.yaml"
    job = {"cores": 1, "memory": "1 GB", "walltime": "00:10:00"}
    site.write_text(yaml.safe_dump({"cpu": job}))
    assert isosr("submit", brain, "--site", site, "--dry-run") == 0
    with leading(tmp_path / "out"):
        assert isosr("submit", brain, "--site", site, "--dry-run") == 2
    assert f"the command run is at work on this brain (process {os.getpid()}" in (
        capsys.readouterr().err
    )


def test_run_leads_only_with_jobs_of_a_site(isosr, brain, tmp_path, monkeypatch, capsys):
    """Workers of this machine end with their driver: there is nobody to stop but that."""
    site = tmp_path / "site.yaml"
    job = {"cores": 1, "memory": "1 GB", "walltime": "00:10:00"}
    site.write_text(yaml.safe_dump({"cpu": job}))
    step = ("run", brain, "--step", "convert", "--cluster")
    with leading(tmp_path / "out"):
        assert isosr(*step, site) == 2
        assert "leads the work on this brain" in capsys.readouterr().err
        assert isosr(*step, "local") == 2
        assert "leads the work" not in capsys.readouterr().err
        # The job of a chain is led by SLURM.
        monkeypatch.setenv("ISOSR_JOBS", "isosr:chain")
        assert isosr(*step, site) == 2
        assert "leads the work" not in capsys.readouterr().err
