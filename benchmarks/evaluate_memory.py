"""How much memory `evaluate` takes for volumes of different sizes.

::

    python benchmarks/evaluate_memory.py [EDGE ...]     in voxels; 384 and 640 if none is given

Each volume is a cube of noise with bright spots, measured and "restored", and evaluated with spots
and a report by one worker. Told are the peaks of the resident memory of the driver and of its
worker, and how many times those of the volume before they are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.intensity import CONFOCAL, LIGHT_SHEET, Histogram
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.pyramid import downsample
from isosr_pipeline.store.spec import VolumeSpec

_EDGES = (384, 640)
_TILE = Zyx(64, 128, 128)
_APART = 48
_EVERY = 0.02


def write(path: Path, edge: int, width: float) -> None:
    """Write a cube of noise with Gaussian spots, `width` voxels wide along z and 2 across."""
    spec = VolumeSpec(
        shape=(1, edge, edge, edge),
        dtype=np.dtype(np.uint16),
        voxel_size=(0.5, 0.5, 0.5),
        chunk=Zyx(32, 64, 64),
        shard=Zyx(64, 128, 128),
        channels=("spots",),
    )
    volume = create_volume(path, spec, StoreAttributes())
    histogram = Histogram(spec.dtype)
    finest = np.lib.format.open_memmap(
        path.with_suffix(".npy"), "w+", np.uint16, (edge, edge, edge)
    )
    rng = np.random.default_rng(0)
    for tile in blocks(Box.whole(finest.shape), _TILE):
        away = [
            (np.arange(a, b) % _APART - _APART / 2 + 0.3) / sigma
            for a, b, sigma in zip(tile.start, tile.stop, (width, 2.0, 2.0), strict=True)
        ]
        z, y, x = (np.exp(-0.5 * one**2) for one in away)
        expected = 100 + 900 * z[:, None, None] * y[:, None] * x
        finest[tile.slices] = rng.poisson(expected)
        histogram.add(finest[tile.slices])
    finer = finest
    for index, level in enumerate(spec.levels):
        finer = downsample(finer, level.factors) if index else finest
        for box in blocks(Box.whole(finer.shape), _TILE):
            volume.write(0, box, np.ascontiguousarray(finer[box.slices]), index)
    windows = [[histogram.window(CONFOCAL), histogram.window(LIGHT_SHEET)]]
    volume.update(StoreAttributes(complete=True, windows=windows))
    path.with_suffix(".npy").unlink()


def peaks(folder: Path) -> tuple[float, float]:
    """Evaluate what lies in a folder; return the peaks of the driver and of the worker, in MB."""
    command = [sys.executable, "-m", "isosr_pipeline", "evaluate", "before.zarr", "after.zarr"]
    options = ["--spots", "--report", "report.html", "--workers", "1"]
    process = subprocess.Popen([*command, *options], cwd=folder, stdout=subprocess.DEVNULL)
    driver, most = psutil.Process(process.pid), {"driver": 0.0, "worker": 0.0}
    while process.poll() is None:
        try:
            most["driver"] = max(most["driver"], driver.memory_info().rss / 1e6)
            for child in driver.children(recursive=True):
                most["worker"] = max(most["worker"], child.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            pass
        time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(process.returncode)
    return most["driver"], most["worker"]


def main() -> None:
    """Print a line for each volume; they are removed afterwards."""
    print("      voxels | driver MB | worker MB | times those of the one before")
    before: tuple[float, float] | None = None
    for edge in [int(given) for given in sys.argv[1:]] or _EDGES:
        with tempfile.TemporaryDirectory(prefix="evaluate-") as name:
            write(Path(name) / "before.zarr", edge, 4.0)
            write(Path(name) / "after.zarr", edge, 2.0)
            found = peaks(Path(name))
        ratios = ""
        if before is not None:
            grown = np.divide(found, before)
            ratios = ", ".join(f"{ratio:.2f}" for ratio in grown)
        print(f"{edge**3:12} | {found[0]:9.0f} | {found[1]:9.0f} | {ratios}", flush=True)
        before = found


if __name__ == "__main__":
    main()
