"""A million regions and a job that does nothing: what the engine itself costs the driver.

    python benchmarks/regions.py FOLDER [--regions 1000000] [--files]

A sparse volume is planned and created; its ledger is written as that of a run that is 99 % done,
with results as `restore` records them; then the run is gone on with to its end. With `--files`,
each region that is done has a file, which is looked at before the first task begins.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from isosr_cluster.clients import open_client
from isosr_pipeline.engine.checking import find_altered
from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.engine.output import Output, begin_output
from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.geometry import Region, Zyx
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.store.metadata import Provenance
from isosr_pipeline.store.spec import VolumeSpec

LABEL = "restore"
SHARE_DONE = 0.99
SHARD = Zyx(64, 64, 64)
HISTOGRAM = base64.b64encode(os.urandom(450)).decode()


def null(region: Region) -> dict[str, Any]:
    """Do nothing, and return what a restored region returns."""
    return {**result(region.channel), "began": time.time()}


def result(channel: int) -> dict[str, Any]:
    """Return a result as long as that of a restored region."""
    figures = {"clipped": 12, "saturated": 3, "histogram": HISTOGRAM}
    return {"bytes": 2**18, "channel": channel, **figures}


def spec_of(regions: int) -> VolumeSpec:
    """Return a volume of about so many regions."""
    edge = round(regions ** (1 / 3)) * SHARD.z
    size = (1.0, 1.0, 1.0)
    return VolumeSpec((1, edge, edge, edge), np.dtype("uint8"), size, SHARD, SHARD, ("sparse",))


def begin(path: Path, spec: VolumeSpec) -> Any:
    """Create the store, or go on with it."""
    history = [Provenance(step=LABEL, source="-", parameters={}, versions={}, command=[])]
    return begin_output(path, spec, RegionPlan(SHARD, SHARD, levels=1), history, "resume")


def mark_as_done(output: Output, with_files: bool) -> None:
    """Record 99 % of the regions of level 0, and all of coarser levels."""
    for level, grid in output.plan.grids(output.spec).items():
        count = len(grid) if level else round(SHARE_DONE * len(grid))
        name = f"level {level}" if level else LABEL
        _, _, rows, columns = grid.counts
        for index in range(count):
            files = []
            if with_files and level == 0:
                cell = index // (rows * columns), index // columns % rows, index % columns
                files = [_write(output.volume.path, "0/c/0/" + "/".join(map(str, cell)))]
            output.ledger.record(name, index, {**result(0), "files": files})


def _write(store: Path, name: str) -> tuple[str, int, int, int]:
    path = store / name
    try:
        path.touch()
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.touch()
    found = path.stat()
    return name, found.st_size, found.st_mtime_ns, 0


def first_task(ledger: Ledger, before: float) -> float:
    """Return when the first task began after a time, in Unix time."""
    began = (found.get("began", before) for found in ledger.results(LABEL))
    return min(time for time in began if time > before)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regions", type=int, default=1_000_000)
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args()
    path = options.folder / "regions.zarr"
    shutil.rmtree(path, ignore_errors=True)
    driver = psutil.Process()
    before = driver.memory_info().rss
    start, computed = time.monotonic(), time.process_time()
    spec = spec_of(options.regions)
    with begin(path, spec) as output:
        planned = time.monotonic() - start, time.process_time() - computed
        mark_as_done(output, options.files)
    resumed, computed = time.time(), time.process_time()
    with ExitStack() as lock, open_client(workers=2) as client:
        output = lock.enter_context(begin(path, spec))
        loaded = time.time() - resumed, time.process_time() - computed
        checked = time.process_time()
        find_altered(output.ledger)
        checked = time.process_time() - checked
        resumed += time.time() - resumed - loaded[0]
        output.fill(client, null, SilentReporter(), LABEL)
        ended = time.time()
        rest = len(spec.regions()) - round(SHARE_DONE * len(spec.regions()))
        began = first_task(output.ledger, resumed)
    growth = driver.memory_info().rss - before
    print("                                 seconds    of driver's CPU")
    print(f"planned and created            {planned[0]:>10.2f} {planned[1]:>10.2f}")
    print(f"cluster started, ledger loaded {loaded[0]:>10.2f} {loaded[1]:>10.2f}")
    print(f"files of what is done checked                 {checked:>10.2f}")
    print(f"resumed to the first task      {began - resumed:>10.2f}")
    print(f"each of the last {rest:<8} (ms) {1e3 * (ended - began) / rest:>10.2f}")
    print(f"driver's memory grew by (MB)   {growth / 1e6:>10.1f}")
    shutil.rmtree(path)


if __name__ == "__main__":
    main()
