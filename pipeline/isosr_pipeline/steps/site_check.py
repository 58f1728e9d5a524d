"""Site check: a short job of each kind of a site, and what its workers find there."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from isosr_cluster.asking import ask_all
from isosr_cluster.errors import ClusterError
from isosr_cluster.slurm import commands
from isosr_cluster.slurm.jobs import script_of
from isosr_cluster.slurm.limits import too_long
from isosr_cluster.slurm.site import Kind, Site, Workers
from isosr_cluster.slurm.workers import open_slurm
from isosr_pipeline.clusters import LOGS
from isosr_pipeline.paths import check_creatable, there_meanwhile
from isosr_pipeline.probing import Found, Probe, common_versions

_SECONDS = 300
"""Walltime of the probe: on a slow file system importing the libraries takes minutes."""

_SECONDS_FOR_THE_OTHERS = 30.0
_JOB = "isosr-check"


@dataclass(frozen=True)
class Finding:
    """What was found of one kind of a site's jobs.

    Parameters
    ----------
    section : {"driver", "cpu", "gpu"}
        Of the site file.
    problems : list of str
        What is wrong, in words; none: all is well.
    remarks : list of str
    """

    section: str
    problems: list[str]
    remarks: list[str]


def check_site(
    site: Site, folder: Path, *, say: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Submit a job of a minute for each kind of workers, and yield what they find.

    Parameters
    ----------
    site : Site
    folder : Path
        Where stores would be written; the probe leaves nothing there, and no folder that it made.
    say : callable
        Told of jobs that end, and of waiting in the queue.
    """
    check_creatable(folder / "probe")
    with there_meanwhile(folder):
        yield _driver(site)
        for kind in ("cpu", "gpu"):
            jobs = site.workers(kind)
            if jobs is not None:
                yield _workers(site, kind, jobs, folder, say)


def _driver(site: Site) -> Finding:
    try:
        commands.check(script_of(site.options(site.leading)))
        problem = too_long(site, "driver", site.leading)
    except ClusterError as error:
        return Finding("driver", [str(error)], [])
    if problem:
        return Finding("driver", [problem], [])
    return Finding("driver", [], ["SLURM would take jobs that lead workers"])


def _workers(
    site: Site, kind: Kind, jobs: Workers, folder: Path, say: Callable[[str], None]
) -> Finding:
    short = site.model_copy(update={kind: jobs.model_copy(update={"walltime": _SECONDS})})
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".isosr-check-", dir=folder) as name:
        token = Path(name) / "token"
        token.write_text(secrets.token_hex(), encoding="utf-8")
        probe = Probe(token, kind == "gpu", common_versions())
        cluster = open_slurm(short, kind, jobs.per_job, logs=Path(LOGS), name=_JOB, say=say)
        try:
            with cluster as client:
                waited = time.monotonic() - begin
                client.wait_for_workers(jobs.per_job, timeout=_SECONDS_FOR_THE_OTHERS)
                found = ask_all(client, probe)
            problem = too_long(site, kind, jobs)
        except TimeoutError:
            seconds = _SECONDS_FOR_THE_OTHERS
            few = (
                f"not all {jobs.per_job} workers of the job came within {seconds:g} s of the first"
            )
            return Finding(kind, [f"{few}: look into {LOGS}"], [])
        except ClusterError as error:
            return Finding(kind, [str(error)], [])
        problems = dict.fromkeys(text for worker in found for text in worker.problems)
        problems.update(dict.fromkeys([*_together(token, jobs, found), *filter(None, [problem])]))
    return Finding(kind, list(problems), list(_remarks(found, waited)))


def _together(token: Path, jobs: Workers, found: list[Found]) -> Iterator[str]:
    """Yield what is wrong with the workers of a job as a whole."""
    expected = token.read_text(encoding="utf-8")
    for worker in found:
        if worker.answer is not None and not _holds(worker.answer, expected):
            yield (
                f"what a worker on {worker.host} writes to {token.parent.parent} is not seen here: "
                "stores must lie on a file system that all nodes share"
            )
    devices = [worker.visible for worker in found]
    if jobs.gpus > 1 and len(set(devices)) < len(devices):
        yield f"workers of one job share a GPU (they see {', '.join(devices)})"
    cores = min(worker.cores for worker in found)
    if cores < jobs.cores // jobs.per_job:
        yield (
            f"a worker may use {cores} cores, and {jobs.cores // jobs.per_job} are asked for; see "
            "how the site binds tasks to cores"
        )


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except OSError:
        return False


def _remarks(found: list[Found], waited: float) -> Iterator[str]:
    hosts = ", ".join(sorted({worker.host for worker in found}))
    count = f"{len(found)} worker{'s' if len(found) > 1 else ''}"
    yield f"{count} on {hosts} reached the driver after {waited:.0f} s"
    yield from dict.fromkeys(f"GPU {worker.gpu}" for worker in found if worker.gpu)
    if free := min(worker.scratch_free for worker in found):
        yield f"scratch {found[0].scratch} has {free / 1e9:.0f} GB free"
