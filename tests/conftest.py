from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from distributed import Client
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from isosr_cluster.clients import OpenClient, open_client
from isosr_pipeline.cli import main
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.intensity import CONFOCAL, LIGHT_SHEET, Histogram
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.pyramid import downsample
from isosr_pipeline.store.spec import Ngff, VolumeSpec
from isosr_pipeline.store.volume import Volume

settings.register_profile(
    "real parts",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("real parts")

# Tests may share their cores; threads that wait for each other would crawl.
torch.set_num_threads(1)

DATA = Path(os.environ.get("ISOSR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    with open_client(workers=2) as connected:
        yield connected


@pytest.fixture
def cluster(client: Client) -> OpenClient:
    return lambda: nullcontext(client)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real volumes."""
    if not DATA.is_dir():
        pytest.skip(f"the real volumes are not at {DATA}; set ISOSR_TEST_DATA to their folder")
    return DATA


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let SIGHUP be heard here and in what is started, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


MakeStore = Callable[..., Volume]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Write a complete store from an array (z, y, x) or (c, z, y, x)."""
    count = 0

    def make(
        voxels: NDArray[np.generic],
        *,
        voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
        chunk: tuple[int, int, int] = (16, 16, 16),
        shard: tuple[int, int, int] = (32, 32, 32),
        ngff: Ngff = "0.5",
    ) -> Volume:
        nonlocal count
        count += 1
        image = voxels if voxels.ndim == 4 else voxels[None]
        spec = VolumeSpec(
            shape=image.shape,
            dtype=image.dtype,
            voxel_size=voxel_size,
            chunk=Zyx(*chunk),
            shard=Zyx(*(shard if ngff == "0.5" else chunk)),
            channels=tuple(f"channel {i}" for i in range(len(image))),
            ngff=ngff,
        )
        volume = create_volume(tmp_path / f"store{count}.zarr", spec, StoreAttributes())
        windows = []
        for channel, values in enumerate(image):
            finer = values
            for index, level in enumerate(spec.levels):
                finer = downsample(finer, level.factors) if index else values
                volume.write(channel, Box.whole(finer.shape), finer, index)
            histogram = Histogram(image.dtype)
            histogram.add(values)
            windows.append([histogram.window(CONFOCAL), histogram.window(LIGHT_SHEET)])
        volume.update(StoreAttributes(complete=True, windows=windows))
        return Volume(volume.path)

    return make


@pytest.fixture
def slices(tmp_path: Path) -> Callable[..., Path]:
    """Write an array (z, y, x) as a folder of slices."""

    def write(voxels: NDArray[np.generic], name: str = "slices", **options: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for z, plane in enumerate(voxels):
            tifffile.imwrite(folder / f"slice{z}.tif", plane, **options)
        return folder

    return write


@pytest.fixture
def noise() -> NDArray[np.uint16]:
    return np.random.default_rng(7).integers(0, 60000, (40, 50, 45), dtype=np.uint16)


RunCommand = Callable[..., int]


@pytest.fixture
def isosr(monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Run the console script in this process and return its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["isosr-pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0)

    return run
