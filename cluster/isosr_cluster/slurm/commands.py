"""SLURM's commands: submit, look, cancel; their errors come with SLURM's own words."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from isosr_cluster.errors import SlurmBusyError, SlurmError

_SECONDS_TO_ANSWER = 60.0
_WAITS = (1.0, 3.0, 10.0)
"""Seconds before further attempts at a question that the controller was too busy to answer."""

_BUSY = ("Socket timed out", "Unable to contact slurm controller", "Connection refused")
_LIMITS = ("MaxSubmit", "submit limit", "MaxJobs", "temporarily", "Job rate limit", "try again")
"""Words of refusals that don't last; further ones mean what is asked for."""

_NONE_JUST_NOW = "Requested node configuration is not available"
"""What a question about a job is answered with also where all nodes that could are down."""

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
_HABITS = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_")
_INHERITED = ("SLURM_RESTART_COUNT", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME")
_NUMBER = re.compile(r"(?P<number>\d+)(?:;\S+)?")
_AFTER = re.compile(r"afterany:(\d+)")
_COLUMNS = ("%A", "%T", "%M", "%l", "%N", "%r", "%k", "%j", "%E")
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
    after : tuple of int
        Jobs that must have ended, however they do, before it begins.
    """

    id: int
    state: str
    elapsed: str
    limit: str
    node: str
    reason: str
    comment: str
    name: str
    after: tuple[int, ...] = ()

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
    SlurmBusyError
        When SLURM does not answer, or a limit of jobs is reached.
    SlurmError
        With SLURM's own message, when it is refused.
    """
    # Asked once: one that the controller took without saying so would be there twice.
    told = _run(["sbatch", "--parsable"], script)
    match = _NUMBER.fullmatch(told.splitlines()[-1].strip()) if told.strip() else None
    if match is None:
        raise SlurmError(f"sbatch did not say the number of the job, but {told[:200]!r}")
    return int(match["number"])


def check(script: str) -> None:
    """Have SLURM tell whether it would take a batch script, without submitting it.

    Parameters
    ----------
    script : str

    Raises
    ------
    SlurmBusyError
        When no node could run it, or none that is up.
    SlurmError
        With SLURM's own message: there is no such partition.
    """
    try:
        _patiently(["sbatch", "--test-only"], script)
    except SlurmError as error:
        if _NONE_JUST_NOW in str(error):
            raise SlurmBusyError(str(error)) from error
        raise


def time_limit(partition: str | None) -> int | None:
    """Return how many seconds jobs may run in a partition; None where there is no limit.

    Parameters
    ----------
    partition : str or None
        Or several, with commas between them, of which the most generous counts. None: SLURM's
        default.

    Raises
    ------
    SlurmError
        When SLURM does not answer, or there is no such partition.
    """
    asked = ["--partition", partition] if partition else []
    told = _patiently(["sinfo", "--noheader", "--format=%P|%l", *asked])
    lines = [line.partition("|") for line in told.splitlines()]
    limits = {limit.strip() for name, _, limit in lines if partition or name.endswith("*")}
    if partition and not limits:
        raise SlurmError(f"SLURM knows no partition {partition}; sinfo names those there are")
    if not limits or "infinite" in limits:
        return None
    return max(map(_in_seconds, limits))


def _in_seconds(limit: str) -> int:
    """Read what SLURM writes as [days-][hours:]minutes:seconds."""
    days, _, rest = limit.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part)
    return 86400 * int(days or 0) + seconds


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
    elapsed, limit, node, reason, comment, name, waits_for = rest
    after = tuple(map(int, _AFTER.findall(waits_for)))
    return Job(int(number), state, elapsed, limit, node, reason, comment, name, after)


def _patiently(command: Sequence[str], script: str | None = None) -> str:
    """Run a command that may be run twice; ask again while the controller is busy."""
    for wait in _WAITS:
        with suppress(SlurmBusyError):
            return _run(command, script)
        time.sleep(wait)
    return _run(command, script)


def _run(command: Sequence[str], script: str | None = None) -> str:
    # What is set for the job that this runs in, such as its memory, is not for the next, and
    # habits of the user's shell must not hide jobs, or ask before they are cancelled.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(_HABITS) and k not in _INHERITED
    }
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
            # Ctrl-C and a terminal that closes are for this process, which has to know afterwards
            # what SLURM was asked for.
            process_group=0,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmError(
            f"{command[0]} is not on the path: give this command on a login node of the cluster, "
            "or load SLURM's module"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmBusyError(
            f"{command[0]} did not answer within {_SECONDS_TO_ANSWER:g} s (Socket timed out)"
        ) from error
    if done.returncode < 0:
        raise SlurmError(
            f"{command[0]} was ended by signal {-done.returncode} before it answered; look with "
            "squeue what has become of it"
        )
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        passing = any(words in told for words in (*_BUSY, *_LIMITS))
        raise (SlurmBusyError if passing else SlurmError)(f"SLURM refuses ({told})")
    return done.stdout.strip("\n")


def _user() -> str:
    return str(os.geteuid())
