"""What the jobs of a chain read: copies of brain and site that later edits don't change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from isosr_cluster.slurm.site import Site
from isosr_models.model_folder import write_durably
from isosr_pipeline.brain import Brain
from isosr_pipeline.errors import InputError
from isosr_pipeline.site_files import kind_for
from isosr_pipeline.yaml_files import find_variables

JOBS_FOLDER = "jobs"
"""Below a brain's output: what its jobs read and run."""


def brain_copy(output: Path) -> Path:
    """Return where the copy of a brain lies that the jobs of its chain read."""
    return output / JOBS_FOLDER / "brain.yaml"


def site_copy(output: Path) -> Path:
    """Return where the copy of a site lies that the jobs of a brain's chain read."""
    return output / JOBS_FOLDER / "site.yaml"


def frozen_text(described: BaseModel, what: str) -> str:
    """Write a brain or a site as YAML that reads back as it is, whatever the environment.

    Parameters
    ----------
    described : Brain or Site
    what : str
        For messages.

    Raises
    ------
    InputError
        When a value would be taken for a variable.
    """
    content = described.model_dump(mode="json", exclude_none=True)
    if found := next(find_variables(content), None):
        raise InputError(
            f"{what}: ${{{found}}} is left after variables were replaced, and its jobs would take "
            "it for one; give values without ${...}"
        )
    # JSON is YAML in which all texts are quoted, so that none is taken for a number.
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def freeze(brain: Brain, site: Site) -> None:
    """Write the copies that the jobs of a chain read.

    Parameters
    ----------
    brain : Brain
        Its folder of jobs is there.
    site : Site
    """
    plain = _as_jobs_read_it(brain, site)
    for path, described in ((brain_copy(brain.output), plain), (site_copy(brain.output), site)):
        write_durably(path, frozen_text(described, str(path)).encode())


def changed_since(brain: Brain, site: Site, frozen: Brain, frozen_site: Site) -> list[str]:
    """Return which of the files of a chain have changed since its jobs were first submitted.

    Parameters
    ----------
    brain : Brain
    site : Site
        As their files say now.
    frozen : Brain
    frozen_site : Site
        The copies that the jobs read.
    """
    try:
        same = _as_jobs_read_it(brain, frozen_site) == frozen
    except InputError:
        # It asks for what that site never had.
        same = False
    changed = [] if same else ["the brain file"]
    return changed if site == frozen_site else [*changed, "the site file"]


def _as_jobs_read_it(brain: Brain, site: Site) -> Brain:
    update: dict[str, Any] = {"cluster": "local", "workers": None}  # its jobs are told both
    if brain.model is None:
        # A job with GPUs that sees none shall say so, instead of using the CPU.
        device = "cuda" if kind_for(brain.train.device, site, "train.device") == "gpu" else "cpu"
        update["train"] = brain.train.model_copy(update={"device": device})
    return brain.model_copy(update=update)
