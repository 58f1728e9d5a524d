"""Locks between real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.errors import BusyError
from isosr_pipeline.locking import passing_lock

HOLD = """
import sys, time
from pathlib import Path
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.locking import passing_lock
folder = Path(sys.argv[1])
with passing_lock(folder / "lock", folder, "busy"), Ledger(folder, {}, {}):
    print("held", flush=True)
    sys.stdin.readline()
    time.sleep(2)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the locks of a folder for a while after it is told to go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_job_waits_for_the_locks_of_its_run_before(holder, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(BusyError, match="busy"), passing_lock(tmp_path / "lock", tmp_path, "busy"):
        pass
    with pytest.raises(BusyError, match="is being filled by another process"):
        Ledger(tmp_path, {}, {})

    monkeypatch.setenv("SLURM_JOB_ID", "1")
    holder.stdin.write("go\n")
    holder.stdin.flush()
    with passing_lock(tmp_path / "lock", tmp_path, "busy"), Ledger(tmp_path, {}, {}):
        # The file that was waited for is gone, and this is another.
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()
