from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Slurm, missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A real SLURM that this process and those that it starts talk to."""
    if absent := missing():
        pytest.skip(
            f"no SLURM on this machine ({', '.join(absent)} not found): "
            "install slurm-wlm and munge to run these tests"
        )
    with Slurm() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(running.conf))
        yield running


@pytest.fixture(autouse=True)
def _nothing_left(slurm: Slurm) -> Iterator[None]:
    yield
    slurm.reset()
