"""Many workers and regions that take no time: how many regions a second the driver keeps up with.

    python benchmarks/many_workers.py FOLDER [--workers 64] [--processes 2] [--regions 20000]

The workers are real, and each has a connection of its own to the driver's scheduler; several live
in one process, so that they don't need a machine each. Regions are recorded as `restore` does;
coarser levels, which would be made in earnest, are left out. Processor time is that of the driver,
scheduler included, and of all workers; it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import psutil
from distributed import Client, LocalCluster, Worker
from regions import LABEL, begin, null, spec_of

from isosr_pipeline.engine.filling import fill
from isosr_pipeline.progress import SilentReporter

_SECONDS_TO_COME = 120


def live(address: str, names: list[str]) -> None:
    """Let workers live in this process until the scheduler goes."""

    async def together() -> None:
        workers = [
            await Worker(address, name=name, nthreads=1, dashboard=False, memory_limit=0)
            for name in names
        ]
        await asyncio.gather(*(worker.finished() for worker in workers))

    logging.getLogger("distributed").setLevel(logging.ERROR)
    asyncio.run(together())


def computed(pids: list[int]) -> float:
    """Return the processor time in seconds that processes have taken."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--regions", type=int, default=20_000)
    options = parser.parse_args()
    path = options.folder / "many-workers.zarr"
    shutil.rmtree(path, ignore_errors=True)
    spawn = multiprocessing.get_context("spawn")
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        begin(path, spec_of(options.regions)) as output,
    ):
        names = [f"worker-{number}" for number in range(options.workers)]
        parts = [names[n :: options.processes] for n in range(options.processes)]
        address = cluster.scheduler_address
        processes = [spawn.Process(target=live, args=(address, part)) for part in parts]
        for process in processes:
            process.start()
        client.wait_for_workers(options.workers, timeout=_SECONDS_TO_COME)
        pids = [process.pid for process in processes]
        grid = output.plan.grids(output.spec)[0]
        start, led, worked = time.monotonic(), computed([os.getpid()]), computed(pids)
        fill(client, grid, null, output.ledger, SilentReporter(), LABEL)
        seconds = time.monotonic() - start
        led, worked = computed([os.getpid()]) - led, computed(pids) - worked
        rates = (len(grid) / spent for spent in (seconds, led, worked, led + worked))
        print("| workers | regions | a second | of the driver's CPU | of the workers' | of both |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        print(
            f"| {options.workers} | {len(grid)} | {' | '.join(f'{rate:.0f}' for rate in rates)} |"
        )
        client.retire_workers()
    for process in processes:
        process.join(10)
        process.kill()
    shutil.rmtree(path)


if __name__ == "__main__":
    main()
