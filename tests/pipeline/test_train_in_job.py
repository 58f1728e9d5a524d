"""What a job of training runs, in a real shell, with a script in place of Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from isosr_cluster.slurm.site import Site
from isosr_models.checkpoint import CHECKPOINT
from isosr_models.model_folder import DESCRIPTION
from isosr_pipeline.steps.train_in_job import training_command


@pytest.mark.parametrize("count", [None, "0", "5"])
@pytest.mark.parametrize(
    ("ages", "option"),
    [
        ({}, "--overwrite"),
        ({DESCRIPTION: -100}, "--overwrite"),
        ({CHECKPOINT: -100}, "--overwrite"),
        ({CHECKPOINT: 100}, "--resume"),
        ({DESCRIPTION: 100}, "--resume"),
    ],
)
def test_a_model_is_overwritten_until_the_new_one_is_begun(
    tmp_path: Path, ages: dict[str, int], option: str, count: str | None
) -> None:
    model, parameters, python = (tmp_path / name for name in ("my model", "a.yaml", "python"))
    python.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    python.chmod(0o755)
    parameters.touch()
    model.mkdir()
    for name, age in ages.items():
        (model / name).touch()
        written = parameters.stat().st_mtime + age
        os.utime(model / name, (written, written))
    jobs = {"cores": 1, "memory": "1 GB", "walltime": "01:00:00"}
    site = Site.model_validate({"cpu": jobs, "python": str(python)})
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_RESTART_COUNT"}
    environment |= {"SLURM_RESTART_COUNT": count} if count else {}
    done = subprocess.run(
        training_command([tmp_path / "a.zarr"], model, parameters, site, "overwrite"),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = f"{tmp_path}/a.zarr|{model}|--parameters|{parameters}"
    assert done.stdout == f"-m|isosr_pipeline|train|{paths}|{option}|"
