"""What a site offers: partitions, cores, memory, GPUs and walltimes of the jobs that run there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    model_validator,
)

Kind = Literal["cpu", "gpu"]
"""What a job's work is done by."""

_MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT])(?:i?B)?", re.IGNORECASE)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d{1,4}):(?P<minutes>\d\d):(?P<seconds>\d\d)")
_TIME = re.compile(r"[\"']?(?:--time(?:-min)?(?:=.*)?|-t.*)")
_LEAST_WALLTIME = 60
_MIB = 2**20


def _bytes(value: Any) -> Any:
    """Read sizes as SLURM means them: G is 2³⁰."""
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("give a number and a unit, such as 64 GB")
    return int(float(match["number"]) * _UNITS[match["unit"].upper()])


def _seconds(value: Any) -> Any:
    match = _WALLTIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("give hours:minutes:seconds or days-hours:minutes:seconds")
    parts = {name: int(number or 0) for name, number in match.groupdict().items()}
    seconds = int(timedelta(**parts).total_seconds())
    if seconds < _LEAST_WALLTIME:
        raise ValueError(f"give at least {_LEAST_WALLTIME} seconds")
    return seconds


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("give a line of printable characters")
    return value


def _memory_text(value: int) -> str:
    return f"{value / _UNITS['K']!r}K"


def walltime_text(seconds: int) -> str:
    """Write a walltime as SLURM reads it: days-hours:minutes:seconds.

    Parameters
    ----------
    seconds : int
    """
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


Memory = Annotated[
    int,
    Field(ge=2**20),
    BeforeValidator(_bytes),
    PlainSerializer(_memory_text, when_used="json"),
]
"""Bytes, from text such as ``"64 GB"``."""

Walltime = Annotated[
    int, BeforeValidator(_seconds), PlainSerializer(walltime_text, when_used="json")
]
"""Seconds, from ``"12:00:00"`` or ``"2-00:00:00"``."""


def _directive(value: str) -> str:
    """Refuse what would give a job another walltime than the one that is reckoned with."""
    for word in _one_line(value).split():
        if _TIME.fullmatch(word):
            raise ValueError(f"{word} is what walltime is for; give that instead")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
"""Text that fits into a line of a script."""

Directive = Annotated[str, AfterValidator(_directive)]
"""An option of ``sbatch``, but not that of the walltime."""

Word = Annotated[str, Field(pattern=r"^[^\s'\"\\$`;&|<>#]+$")]
"""Text without blanks or characters that mean something to a shell."""


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Resources(_Described):
    """What a job asks for.

    Attributes
    ----------
    partition, account, qos, constraint : str or None
        As in ``sbatch``; None: SLURM's default, or the site's own account.
    cores : int
    memory : int
        Bytes; in a file, text such as ``64 GB``.
    gpus : int
    gpu_type : str or None
        As the site names it in ``--gres=gpu:TYPE:N``; also the name of a MIG profile.
    walltime : int
        Seconds; in a file, ``12:00:00`` or ``2-00:00:00``.
    directives : list of str
        Further options of ``sbatch``, such as ``--exclude=node7``; none for the walltime.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Line | None = None
    cores: PositiveInt
    memory: Memory
    gpus: NonNegativeInt = 0
    gpu_type: Word | None = None
    walltime: Walltime
    directives: list[Directive] = []

    @model_validator(mode="after")
    def _typed(self) -> Resources:
        if self.gpu_type is not None and not self.gpus:
            raise ValueError("gpu_type is given without gpus; say how many")
        return self


class Workers(Resources):
    """What each job of Dask workers asks for, and how many workers there are.

    Attributes
    ----------
    processes : int or None
        Worker processes in a job; None: one a GPU, or one a core.
    workers : int
        Worker processes at a time, unless ``--workers`` says otherwise: whole jobs.
    """

    processes: PositiveInt | None = None
    workers: PositiveInt = 1

    @property
    def per_job(self) -> int:
        """Worker processes in a job."""
        return self.processes or self.gpus or self.cores

    def jobs_for(self, workers: int | None) -> int:
        """Return how many jobs hold so many worker processes, or as many as the site says.

        Parameters
        ----------
        workers : int or None
        """
        return math.ceil((workers or self.workers) / self.per_job)

    @model_validator(mode="after")
    def _one_each(self) -> Workers:
        if self.gpus and self.processes not in (None, self.gpus):
            raise ValueError(
                f"processes is {self.processes} and gpus is {self.gpus}, and each process has one "
                "GPU; leave processes out"
            )
        if self.per_job > self.cores:
            raise ValueError(
                f"cores is {self.cores}, and a job has {self.per_job} worker processes; give each "
                "one core or more"
            )
        return self


class Site(_Described):
    """A SLURM cluster, as a site file describes it; unknown keys are errors.

    Attributes
    ----------
    account : str or None
        Of jobs that don't name their own.
    interface : str or None
        Network between the nodes, such as ``ib0``; None: that of the default route.
    scratch : str or None
        Folder of each node for what is temporary; the shell of the job expands it.
    setup : list of str
        Lines of shell that every job runs first, such as ``module load cuda``.
    directives : list of str
        Further options of ``sbatch`` for every job.
    python : str or None
        With isosr-pipeline, on every node; the shell of the job expands it, after `setup`: quote
        blanks. None: the one that submits.
    encrypted : bool
        Whether driver and workers speak TLS with certificates of their own. Without it, whoever
        reaches the driver's port can run code as its user.
    notice : int
        Seconds before its walltime at which a driver is told to stop, save and queue again.
    restarts : int
        How often a driver queues again, at most.
    cpu, gpu : Workers
        Jobs of workers without and with GPUs; training runs in one like those.
    driver : Resources or None
        Jobs that lead the workers; None: like those of `cpu`, with few cores and little memory.
    """

    account: Word | None = None
    interface: Word | None = None
    scratch: Line | None = None
    setup: list[Line] = []
    directives: list[Directive] = []
    python: Line | None = None
    encrypted: bool = True
    notice: Annotated[int, Field(ge=10, le=3600)] = 120
    restarts: NonNegativeInt = 100
    cpu: Workers | None = None
    gpu: Workers | None = None
    driver: Resources | None = None

    @model_validator(mode="after")
    def _usable(self) -> Site:
        if self.cpu is None and self.gpu is None:
            raise ValueError("neither cpu nor gpu is given; describe one of them")
        if self.gpu is not None and not self.gpu.gpus:
            raise ValueError("gpu.gpus is 0; say how many GPUs a job has")
        if self.cpu is not None and self.cpu.gpus:
            raise ValueError(f"cpu.gpus is {self.cpu.gpus}; describe those jobs as gpu")
        for name, found in (("cpu", self.cpu), ("gpu", self.gpu), ("driver", self.driver)):
            if found is not None and found.walltime <= self.notice:
                raise ValueError(
                    f"{name}.walltime is {found.walltime} s, and drivers are told {self.notice} s "
                    "before their end; give more walltime or less notice"
                )
        return self

    @property
    def leading(self) -> Resources:
        """What a job asks for that leads workers, and computes little itself."""
        if self.driver is not None:
            return self.driver
        like = self.cpu or self.gpu
        if like is None:
            raise AssertionError("a site has jobs of one kind at least")
        few = {"cores": min(like.cores, 2), "memory": min(like.memory, 8 * 2**30)}
        fields = like.model_dump(include=set(Resources.model_fields))
        return Resources.model_construct(**{**fields, **few, "gpus": 0, "gpu_type": None})

    @property
    def leading_section(self) -> Literal["driver", "cpu", "gpu"]:
        """The section of the site file that `leading` is from."""
        return "driver" if self.driver else "cpu" if self.cpu else "gpu"

    def workers(self, kind: Kind) -> Workers | None:
        """Return what jobs of workers of a kind ask for; None where the site has none."""
        return self.gpu if kind == "gpu" else self.cpu

    def options(self, job: Resources) -> Iterator[str]:
        """Yield the options of ``sbatch`` that ask for what a job needs.

        Parameters
        ----------
        job : Resources
        """
        yield "--nodes=1"
        yield "--ntasks=1"
        yield f"--cpus-per-task={job.cores}"
        yield f"--mem={-(-job.memory // _MIB)}M"
        yield f"--time={walltime_text(job.walltime)}"
        named = {
            "partition": job.partition,
            "account": job.account or self.account,
            "qos": job.qos,
            "constraint": f'"{job.constraint}"' if job.constraint else None,
        }
        yield from (f"--{name}={value}" for name, value in named.items() if value)
        if job.gpus:
            yield "--gres=" + ":".join(filter(None, ("gpu", job.gpu_type, str(job.gpus))))
        yield from self.directives
        yield from job.directives
