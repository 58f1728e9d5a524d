"""What a worker finds where it runs: its machine, GPU, scratch, and the files of the driver."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import distributed
import torch

from isosr_cluster.environment import SCRATCH
from isosr_cluster.gpus import VISIBLE
from isosr_pipeline.engine.output import versions

_BYTES = 1 << 20


@dataclass(frozen=True)
class Found:
    """What one worker found.

    Parameters
    ----------
    host : str
    gpu : str
        Its name; empty where there is none.
    visible : str
        CUDA_VISIBLE_DEVICES, which tells the workers of a job apart.
    cores : int
        That the process may use.
    scratch : Path
        Folder for what is temporary.
    scratch_free : int
        Bytes.
    answer : Path or None
        What it has written where stores would be; None where it could not.
    problems : tuple of str
        What is wrong, in words.
    """

    host: str
    gpu: str
    visible: str
    cores: int
    scratch: Path
    scratch_free: int
    answer: Path | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """Looks around on a worker.

    Parameters
    ----------
    token : Path
        A file that the driver has written; an answer is written beside it.
    with_gpu : bool
        Whether a GPU is expected.
    versions : dict of str to str
        The driver's.
    """

    token: Path
    with_gpu: bool
    versions: dict[str, str]

    def __call__(self) -> Found:
        """Look around; what is wrong is told, not raised."""
        scratch = Path(os.environ.get(SCRATCH) or tempfile.gettempdir())
        gpu, gpu_problem = _gpu() if self.with_gpu else ("", "")
        answer, not_shared = self._answer()
        problems = [gpu_problem, self._versions(), _writable(scratch), not_shared]
        return Found(
            host=platform.node(),
            gpu=gpu,
            visible=os.environ.get(VISIBLE, ""),
            cores=len(os.sched_getaffinity(0)),
            scratch=scratch,
            scratch_free=shutil.disk_usage(scratch).free if scratch.is_dir() else 0,
            answer=answer,
            problems=tuple(filter(None, problems)),
        )

    def _versions(self) -> str:
        here = common_versions()
        other = [f"{k} {here[k]} (here {v})" for k, v in self.versions.items() if here[k] != v]
        if not other:
            return ""
        return f"the worker has {', '.join(other)}: have setup or python lead to the same programs"

    def _answer(self) -> tuple[Path | None, str]:
        """Answer the driver by a file; return it, or what is wrong."""
        folder = self.token.parent
        answer = folder / f"answer-{platform.node()}-{os.getpid()}"
        try:
            answer.write_text(self.token.read_text(encoding="utf-8"), encoding="utf-8")
        except OSError as error:
            return None, (
                f"{folder.parent} can't be read and written from {platform.node()} "
                f"({error.strerror}): stores must lie on a file system that all nodes share"
            )
        return answer, ""


def common_versions() -> dict[str, str]:
    """Return the versions of what driver and workers must have in common."""
    return {
        "Python": platform.python_version(),
        "distributed": distributed.__version__,
        **versions(),
    }


def _gpu() -> tuple[str, str]:
    """Return the name of the GPU, or what is wrong with it."""
    visible = os.environ.get(VISIBLE)
    seen = "isn't set" if visible is None else f"is {visible!r}"
    if not torch.cuda.is_available():
        return "", (
            f"PyTorch finds no GPU there ({VISIBLE} {seen}): ask for one with gpus and gpu_type, "
            "load its driver in setup, and install a PyTorch for it"
        )
    try:
        torch.ones(1024, device="cuda").sum().item()
    except RuntimeError as error:
        return "", f"the GPU does not compute: {str(error).splitlines()[0]}"
    return torch.cuda.get_device_name(0), ""


def _writable(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * _BYTES)
    except OSError as error:
        return f"scratch {folder} can't be written to ({error.strerror})"
    return ""
