"""How fast convert is, and how lean: python benchmarks/convert.py FOLDER --slices S [WHAT...].

The input, 512 × 1500 × 1500 voxels of 16 bits, is tiled from slices of a real volume (--slices)
and kept in FOLDER. WHAT is any of

- ngff-zarr: the whole conversion beside that of the ngff-zarr command line, by turns;
- level-0: level 0 alone, beside bare loops that read planes and write the same shards, by turns;
- memory: the peak memory for the input, and for one four times as long;
- regions: what 100,000 regions cost in which there is nothing to do.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorstore
import tifffile
import zarr
from watching import isosr, measure

from isosr_cluster.clients import open_client
from isosr_pipeline.engine.filling import fill
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.engine.regions import plan_regions
from isosr_pipeline.geometry import Box, Region, RegionGrid, Zyx
from isosr_pipeline.processing import processed
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.steps.convert import ConvertRegion, plan_volume
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.volume import Volume

SHAPE = (512, 1500, 1500)
VOXEL_SIZE = (3.0, 2.0, 2.0)
"""In µm: both programs then make the same pyramid, with z halved from the second level on."""

TURNS = 3


def make_input(folder: Path, slices: Path, length: int = 1) -> Path:
    """Tile the slices of a real volume to an uncompressed OME-TIFF, `length` times SHAPE long."""
    path = folder / f"tiled{length}.ome.tif"
    if not path.exists():
        real = [tifffile.imread(p) for p in sorted(slices.glob("*.tif"))]
        planes, height, width = SHAPE[0] * length, *SHAPE[1:]
        copies = [-(-n // m) for n, m in zip(SHAPE[1:], real[0].shape, strict=True)]
        metadata: dict[str, Any] = {"axes": "ZYX"}
        for axis, size in zip("ZYX", VOXEL_SIZE, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
        partial = path.with_suffix(".partial.tif")
        tifffile.imwrite(
            partial,
            (np.tile(real[z % len(real)], copies)[:height, :width] for z in range(planes)),
            shape=(planes, height, width),
            dtype=real[0].dtype,
            bigtiff=True,
            ome=True,
            metadata=metadata,
        )
        partial.rename(path)
    return path


@dataclass
class Figure:
    """One line of the table.

    Parameters
    ----------
    name : str
    value : str
        With what it is compared to.
    """

    name: str
    value: str


def by_turns(ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Time several ways by turns, so that what else the machine does meets them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            seconds[name].append(way())
            print(f"  turn {turn + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def against_ngff_zarr(folder: Path, source: Path) -> Iterator[Figure]:
    """Convert with both command lines: same chunks, codec and levels; and with our defaults."""
    peaks: dict[str, int] = {}

    def run(name: str, store: Path, command: list[object]) -> float:
        shutil.rmtree(store, ignore_errors=True)
        found = measure(command)
        peaks[name] = max(peaks.get(name, 0), found.together)
        return found.seconds

    ours, theirs = folder / "ours.zarr", folder / "theirs.zarr"
    ngff: list[object] = [Path(sys.executable).parent / "ngff-zarr", "-q"]
    ngff += ["-i", source, "-o", theirs, "-m", "dask_bin_shrink", "-c", 96]
    ngff += ["--codec", "blosc:zstd", "--compression-level", 1]
    seconds = by_turns(
        {
            "ngff-zarr": lambda: run("ngff-zarr", theirs, ngff),
            "isosr-pipeline": lambda: run(
                "isosr-pipeline", ours, isosr("convert", source, ours, "--chunk", 96)
            ),
            "defaults": lambda: run("defaults", ours, isosr("convert", source, ours)),
        }
    )
    ratios = [a / b for a, b in zip(seconds["ngff-zarr"], seconds["isosr-pipeline"], strict=True)]
    for name, values in seconds.items():
        peak = f"{peaks[name] / 1e9:.2f} GB"
        yield Figure(f"whole conversion, {name}", f"{statistics.median(values):.1f} s, {peak}")
    yield Figure("times as fast as ngff-zarr", f"{statistics.median(ratios):.1f}")
    _refuse_differences(ours, source)
    shutil.rmtree(ours)
    shutil.rmtree(theirs)


def _refuse_differences(store: Path, source: Path) -> None:
    """Leave the program if what was converted is not the source."""
    volume = Volume(store)
    for z in range(0, SHAPE[0], 64):
        planes = volume.read(0, Box(Zyx(z, 0, 0), Zyx(z + 64, *SHAPE[1:])))
        if not (planes == tifffile.imread(source, key=range(z, z + 64))).all():
            sys.exit(f"{store} is not {source} in planes {z} to {z + 63}")


def level_0(folder: Path, source: Path) -> Iterator[Figure]:
    """Write level 0 with two workers, and with bare loops in one process with all threads."""
    image = processed(open_source(source), ConvertSettings())
    spec = plan_volume(image, ConvertSettings())
    plan = replace(plan_regions(spec, image.grain), levels=1)
    store = folder / "level0.zarr"

    def fresh() -> None:
        shutil.rmtree(store, ignore_errors=True)
        create_volume(store, spec, StoreAttributes())

    def engine() -> float:
        fresh()
        job = ConvertRegion(image, store, plan.piece, None)
        with Ledger(store, {}, {}) as ledger:
            begin = time.monotonic()
            fill(client, plan.grids(spec)[0], job, ledger, SilentReporter(), "convert")
            return time.monotonic() - begin

    def bare(write: Callable[[slice, Any], None]) -> float:
        begin = time.monotonic()
        for z in range(0, SHAPE[0], spec.shard.z):
            planes = slice(z, min(z + spec.shard.z, SHAPE[0]))
            write(planes, tifffile.imread(source, key=range(planes.start, planes.stop)))
        return time.monotonic() - begin

    def with_zarr() -> float:
        fresh()
        array = zarr.open_array(store / "0", mode="r+")

        def write(planes: slice, data: Any) -> None:
            array[0, planes] = data

        return bare(write)

    def with_tensorstore() -> float:
        fresh()
        where = {"driver": "zarr3", "kvstore": f"file://{store / '0'}/"}
        array = tensorstore.open(where, open=True, write=True).result()
        return bare(lambda planes, data: array[0, planes].write(data).result())

    ways = {"engine": engine, "bare zarr-python": with_zarr, "bare tensorstore": with_tensorstore}
    with open_client() as client:
        engine()  # workers load their libraries once
        _refuse_differences(store, source)
        seconds = by_turns(ways)
    size = np.prod(SHAPE) * 2 / 1e6
    for name, values in seconds.items():
        yield Figure(f"level 0, {name}", f"{size / statistics.median(values):.0f} MB/s")
    for name in list(ways)[1:]:
        ratios = [b / a for a, b in zip(seconds["engine"], seconds[name], strict=True)]
        yield Figure(f"level 0, share of {name}", f"{100 * statistics.median(ratios):.0f} %")
    shutil.rmtree(store)


def memory(folder: Path, slices: Path) -> Iterator[Figure]:
    """Convert the input, and one four times as long."""
    peaks = []
    for length in (1, 4):
        source, store = make_input(folder, slices, length), folder / "memory.zarr"
        shutil.rmtree(store, ignore_errors=True)
        found = measure(isosr("convert", source, store))
        shutil.rmtree(store)
        peaks.append(found.together)
        yield Figure(
            f"peak memory of driver and workers, {length} × the input",
            f"{found.together / 1e9:.2f} GB in {found.seconds:.1f} s",
        )
    yield Figure("memory for four times the input", f"{100 * peaks[1] / peaks[0]:.0f} %")


def idle(region: Region) -> dict[str, Any]:
    """Return what a region's job returns, of a region in which there is nothing to do."""
    histogram = Histogram(np.uint16)
    histogram.add(np.full(10, region.index % 60_000, np.uint16))
    return {"bytes": 20, "channel": 0, "histogram": histogram.encode()}


def tiny_regions(folder: Path) -> Iterator[Figure]:
    """Run the engine over 100,000 regions without work, and see how its memory grows."""
    count = 100_000
    store = folder / "regions"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    warm, grid = (RegionGrid((1, 1, 1, n), Zyx(1, 1, 1)) for n in (1000, count))
    driver = psutil.Process()
    with open_client() as client, Ledger(store, {}, {}) as ledger:
        fill(client, warm, idle, ledger, SilentReporter(), "warm")
        before, begin = driver.memory_info().rss, time.monotonic()
        fill(client, grid, idle, ledger, SilentReporter(), "convert")
        seconds, after = time.monotonic() - begin, driver.memory_info().rss
        own = [_seconds_of(idle, grid) for _ in range(3)]
    shutil.rmtree(store)
    share = statistics.median(own) / 2  # there are two workers
    yield Figure("overhead of a region", f"{1000 * (seconds / count - share):.2f} ms")
    yield Figure("growth of the driver over 100,000 regions", f"{(after - before) / 1e6:.0f} MB")


def _seconds_of(job: Callable[[Region], object], grid: RegionGrid) -> float:
    begin = time.monotonic()
    for index in range(1000):
        job(grid[index])
    return (time.monotonic() - begin) / 1000


def main() -> None:
    """Measure what is asked for, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the input and results, 20 GB")
    parser.add_argument("what", nargs="*", help="default: all")
    parser.add_argument("--slices", type=Path, required=True, help="folder of a real volume")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(exist_ok=True)
    measurements: dict[str, Callable[[], Iterator[Figure]]] = {
        "ngff-zarr": lambda: against_ngff_zarr(folder, make_input(folder, options.slices)),
        "level-0": lambda: level_0(folder, make_input(folder, options.slices)),
        "memory": lambda: memory(folder, options.slices),
        "regions": lambda: tiny_regions(folder),
    }
    figures: list[Figure] = []
    for what in options.what or measurements:
        print(what, flush=True)
        figures.extend(measurements[what]())
    print("| what | measured |\n| --- | ---: |")
    for figure in figures:
        print(f"| {figure.name} | {figure.value} |")


if __name__ == "__main__":
    main()
