"""How SLURM's commands are asked, tried with others in their place."""

from __future__ import annotations

import os

import pytest

from isosr_cluster.errors import SlurmError
from isosr_cluster.slurm import commands


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Put a shell script in the place of a command."""

    def pretend(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return pretend


def test_habits_of_the_shell_do_not_hide_a_limit(pretend, monkeypatch):
    monkeypatch.setenv("SINFO_PARTITION", "high")
    pretend("sinfo", 'test -z "$SINFO_PARTITION" && echo "low*|1:00:00" || echo "high|2:00:00"')
    assert commands.time_limit(None) == 3600


def test_what_a_terminal_sends_to_its_processes_does_not_reach_slurm(pretend):
    pretend("sbatch", "group=$(ps -o pgid= -p $$); test $group -eq $$ && echo 7 || echo 8")
    assert commands.submit("#!/bin/sh") == 7


def test_a_command_that_is_killed_is_no_refusal(pretend):
    pretend("sbatch", "kill -INT $$")
    with pytest.raises(SlurmError, match=r"sbatch was ended by signal 2 .* look with squeue"):
        commands.submit("#!/bin/sh")


def test_what_a_job_waits_for_is_read(pretend):
    line = "\\037".join(
        ["12", "PENDING", "0:00", "1:00", "", "Dependency", "isosr:a:convert", "convert-a"]
    )
    waits = "afterany:7(unfulfilled),afterany:9(unfulfilled),afterok:3(unfulfilled)"
    pretend("squeue", f"printf '{line}\\037{waits}\\n'")
    assert commands.find_jobs()[12].after == (7, 9)
