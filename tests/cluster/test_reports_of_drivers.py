"""What a driver's script lets report its end, run by a shell alone, without SLURM."""

from __future__ import annotations

import os
import subprocess

import pytest

from isosr_cluster.slurm.scripts import Driver, InShell, driver_script, exit_file, log_of
from isosr_cluster.slurm.site import Resources, Site

RESOURCES = {"cores": 1, "memory": "100 MB", "walltime": "00:10:00"}
NEAR = ("sh", "-c", "trap '' TERM; kill -USR1 $PPID; exit 75")
"""A command during which the end of the walltime comes near."""


@pytest.fixture
def ended(tmp_path):
    """Run a script to its end; return its exit code, and what is kept of it."""

    def ended(command, report, **site):
        described = Site.model_validate({"cpu": RESOURCES, **site})
        resources, log = Resources.model_validate(RESOURCES), tmp_path / "log-%j.txt"
        driver = Driver("a", "b", resources, command, tmp_path, log, report=report)
        script = tmp_path / "script.sh"
        script.write_text(driver_script(described, driver))
        done = subprocess.run(
            ["/bin/bash", script],
            env={**os.environ, "SLURM_JOB_ID": "7"},
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        return done.returncode, exit_file(log_of(7, log)).read_text().strip()

    return ended


def test_a_signal_during_the_report_does_not_change_how_the_command_ended(ended, tmp_path):
    reported = tmp_path / "reported"
    report = ("sh", "-c", f'kill -TERM "$1"; touch {reported}', "-", InShell("$$"))
    assert ended(("sh", "-c", "exit 3"), report) == (3, "3")
    assert reported.exists()


@pytest.mark.parametrize(
    ("command", "notice", "least", "most"),
    [
        (("sh", "-c", "exit 3"), 30, 60, 60),
        (NEAR, 300, 60, 60),
        # Less what passes meanwhile, and what the script needs to leave.
        (NEAR, 45, 25, 35),
        (NEAR, 15, None, None),
    ],
)
def test_a_report_ends_before_the_walltime(ended, tmp_path, command, notice, least, most):
    noted = tmp_path / "noted"
    # In place of what ends the report, this notes when it would.
    setup = [f'timeout() {{ echo "$3" > {noted}; }}']
    code, kept = ended(command, ("true",), notice=notice, restarts=0, setup=setup)
    assert (code, kept) == ((75, "75 USR1") if command == NEAR else (3, "3"))
    assert noted.exists() == (least is not None)
    if least:
        assert least <= int(noted.read_text()) <= most
