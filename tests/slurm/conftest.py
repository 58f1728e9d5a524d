from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from distributed import Client
from harness import Slurm, missing

from isosr_models.layers import calibrate
from isosr_models.model_folder import save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.cli import main

for name in ("faults", "restoring"):
    pytest.register_assert_rewrite(name)

from faults import Undisturbed, files_of  # noqa: E402 - its assertions are rewritten first
from restoring import OPTIONS, SHAPE, STORE, Pace, Runs, Stage  # noqa: E402


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
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submissions that count brains must not wait for those of this machine's user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


@pytest.fixture(autouse=True)
def _nothing_left(slurm: Slurm) -> Iterator[None]:
    yield
    slurm.reset()


@pytest.fixture(scope="session")
def stage(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Volumes of noise, the smallest model, and what runs on this machine make of them."""
    folder = tmp_path_factory.mktemp("stage")

    def run(*arguments: object) -> None:
        cluster = ("--cluster", client.scheduler.address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["isosr-pipeline", *map(str, arguments), *cluster])
            with pytest.raises(SystemExit) as ending:
                main()
        assert not ending.value.code

    def converted(name: str, shape: tuple[int, ...]) -> Path:
        voxels = np.random.default_rng(5).integers(0, 4000, shape, dtype=np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", voxels)
        store = folder / f"{name}.zarr"
        run("convert", folder / f"{name}.tif", store, "--voxel-size", 1, *STORE)
        return store

    source, cube = converted("source", SHAPE), converted("cube", (36, 40, 44))
    model, out = folder / "model", folder / "out.zarr"
    torch.manual_seed(3)
    network = UNet3d(1)
    calibrate(network, [torch.rand(1, 1, 48, 48, 48) for _ in range(2)])
    save_model(
        model,
        {"generator": network},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    run("restore", source, model, out, *OPTIONS)
    return Stage(source, cube, model, Undisturbed(files_of(out), 0))


@pytest.fixture
def pace(tmp_path: Path) -> Pace:
    return Pace(tmp_path / "pace")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """Start the program; what is left of it ends with the test, and before SLURM is tidied up."""
    begun = Runs(tmp_path)
    yield begun
    begun.end()
