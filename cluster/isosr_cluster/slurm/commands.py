"""SLURM's commands: submit, look, cancel; their errors come with SLURM's own words."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from isosr_cluster.errors import SlurmError

_SECONDS_TO_ANSWER = 60.0
_WAITS = (1.0, 3.0, 10.0)
"""Seconds before further attempts at a question that the controller was too busy to answer."""

_BUSY = ("Socket timed out", "Unable to contact slurm controller", "Connection refused")
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
_HABITS = ("SBATCH_", "SQUEUE_", "SCANCEL_")
_COLUMNS = ("%A", "%T", "%M", "%l", "%N", "%r", "%k", "%j")
_BETWEEN = "\x1f"
_NONE = ("", "(null)", "None", "n/a")


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job.

    Parameters
    ----------
    id : int
    state : str
        As SLURM names it: PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, TIMEOUT and others.
    elapsed, limit : str
        How long it has run, and may run, such as ``1-02:03:04``.
    node : str
        Where it runs or ran; empty while it waits.
    reason : str
        Why it waits or has ended; empty where there is nothing to say.
    comment, name : str
        As it was submitted with.
    """

    id: int
    state: str
    elapsed: str
    limit: str
    node: str
    reason: str
    comment: str
    name: str

    @property
    def ended(self) -> bool:
        """Whether it will never run again; one that is queued again has not ended."""
        return self.state in _ENDED


def submit(script: str) -> int:
    """Submit a batch script; return the number of its job.

    Parameters
    ----------
    script : str

    Raises
    ------
    SlurmError
        With SLURM's own message, when it is refused.
    """
    # Asked once: one that the controller took without saying so would be there twice.
    return int(_run(["sbatch", "--parsable"], script).partition(";")[0])


def check(script: str) -> None:
    """Have SLURM tell whether it would take a batch script, without submitting it.

    Parameters
    ----------
    script : str

    Raises
    ------
    SlurmError
        With SLURM's own message: there is no such partition, or no node with so much memory.
    """
    _patiently(["sbatch", "--test-only"], script)


def find_jobs(ids: Collection[int] | None = None) -> dict[int, Job]:
    """Return what SLURM knows of this user's jobs, by number.

    Parameters
    ----------
    ids : collection of int or None
        Only these; those that SLURM has forgotten are left out.

    Raises
    ------
    SlurmError
        When it does not answer.
    """
    if ids is not None and not ids:
        return {}
    command = ["squeue", "--noheader", "--states=all", f"--user={_user()}"]
    told = _patiently([*command, f"--format={_BETWEEN.join(_COLUMNS)}"])
    found = {job.id: job for line in told.splitlines() if (job := _parsed(line))}
    return found if ids is None else {job: found[job] for job in ids if job in found}


def cancel(ids: Collection[int]) -> None:
    """Cancel jobs; those that have ended already are no error.

    Parameters
    ----------
    ids : collection of int

    Raises
    ------
    SlurmError
        When SLURM refuses.
    """
    if not ids:
        return
    try:
        _patiently(["scancel", *map(str, sorted(ids))])
    except SlurmError as error:
        if "Invalid job id" not in str(error):
            raise


def is_available() -> bool:
    """Tell whether SLURM's commands are on the path."""
    return shutil.which("sbatch") is not None


def _parsed(line: str) -> Job | None:
    parts = line.strip("\n").split(_BETWEEN)
    if len(parts) != len(_COLUMNS) or not parts[0].strip().isdigit():
        return None
    number, *texts = (part.strip() for part in parts)
    state, *rest = ("" if text in _NONE else text for text in texts)
    elapsed, limit, node, reason, comment, name = rest
    return Job(int(number), state, elapsed, limit, node, reason, comment, name)


def _patiently(command: Sequence[str], script: str | None = None) -> str:
    """Run a command that may be run twice; ask again while the controller is busy."""
    for wait in _WAITS:
        try:
            return _run(command, script)
        except SlurmError as error:
            if not any(words in str(error) for words in _BUSY):
                raise
        time.sleep(wait)
    return _run(command, script)


def _run(command: Sequence[str], script: str | None = None) -> str:
    # What is set for the job that this runs in, such as its memory, is not for the next, and
    # habits of the user's shell must not hide jobs, or ask before they are cancelled.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_HABITS)}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, and numbers
            command,
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS_TO_ANSWER,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmError(
            f"{command[0]} is not on the path: give this command on a login node of the cluster, "
            "or load SLURM's module"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{command[0]} did not answer within {_SECONDS_TO_ANSWER:g} s (Socket timed out)"
        ) from error
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SlurmError(f"SLURM refuses ({told})")
    return done.stdout.strip("\n")


def _user() -> str:
    return str(os.geteuid())
