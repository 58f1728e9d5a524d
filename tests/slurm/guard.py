"""Ends a SLURM of the tests once whoever started it lets go of it, or is gone.

It waits until its standard input ends, which also happens when the process that holds the other end
is killed. Then jobs and daemons end, and the folder is removed.

    python guard.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

SECONDS_TO_END = 5.0
CLIENTS_ANSWER = 10.0
POLL = 0.1


def main(folder: Path) -> None:
    """Wait for the end of the standard input, and clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    conf = folder / "slurm.conf"
    for process in belonging(conf):
        # Stopped daemons would neither answer nor end.
        with suppress(psutil.NoSuchProcess):
            process.resume()
    end_jobs(conf)
    end(conf, signal.SIGTERM)
    while not end(conf, signal.SIGKILL):
        pass
    shutil.rmtree(folder, ignore_errors=True)


def end_jobs(conf: Path) -> None:
    """Cancel all jobs while SLURM runs, so that their processes end."""
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    user = f"--user={os.geteuid()}"
    with suppress(subprocess.TimeoutExpired, FileNotFoundError):
        subprocess.run(
            ["scancel", user], env=environment, capture_output=True, timeout=CLIENTS_ANSWER
        )
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline:
            jobs = subprocess.run(
                ["squeue", "--noheader", user],
                env=environment,
                capture_output=True,
                timeout=CLIENTS_ANSWER,
            )
            if jobs.returncode or not jobs.stdout.strip():
                return
            time.sleep(POLL)


def end(conf: Path, number: signal.Signals) -> bool:
    """Signal what belongs to this SLURM; return whether all of it ends in time."""
    for process in belonging(conf):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    deadline = time.monotonic() + SECONDS_TO_END
    while belonging(conf):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def belonging(conf: Path) -> list[psutil.Process]:
    """Return the processes of this SLURM: daemons, jobs, clients.

    Daemons lie in its folder, as some of them overwrite what they were started with; the others
    have its ``SLURM_CONF``.
    """
    return [
        process
        for process in psutil.process_iter(["environ", "status", "cwd"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and (
            (process.info["environ"] or {}).get("SLURM_CONF") == str(conf)
            or conf.parent in (found := Path(process.info["cwd"] or "/"), *found.parents)
        )
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
