"""Time and peak memory of each step on one source: python benchmarks/steps.py SOURCE FOLDER.

Every step is the command of its own that a user runs. Memory is the sum of the resident memory of
the driver and all its workers, seen every tenth of a second, and that of the largest process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass
class Measured:
    """What a step took: seconds, and peak memory in bytes."""

    seconds: float
    together: int
    largest: int


def measure(arguments: list[str]) -> Measured:
    """Run a command of isosr-pipeline to its end and watch its memory."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "isosr_pipeline", *arguments])
    together = largest = 0
    while process.poll() is None:
        sizes = _resident(process.pid)
        together, largest = max(together, sum(sizes)), max(largest, *sizes, 0)
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{arguments[0]} failed with exit code {process.returncode}")
    return Measured(time.monotonic() - begin, together, largest)


def _resident(pid: int) -> list[int]:
    try:
        parent = psutil.Process(pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    sizes = []
    for process in tree:
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sizes


def main() -> None:
    """Measure convert, train, restore and evaluate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path, help="for the results; must not exist")
    parser.add_argument("--voxel-size", default="1,1,1")
    parser.add_argument("--width", default="8")
    parser.add_argument("--iterations", default="100")
    options = parser.parse_args()
    options.folder.mkdir()
    store, model, restored = (str(options.folder / n) for n in ("v.zarr", "model", "r.zarr"))
    fast = ["--batch", "2", "--learning-rate", "0.001", "--beta1", "0.5", "--average", "0.98"]
    training = ["--width", options.width, "--iterations", options.iterations, "--crop", "64"]
    steps = {
        "convert": ["convert", str(options.source), store, "--voxel-size", options.voxel_size],
        "train": ["train", store, model, *training, *fast],
        "restore": ["restore", store, model, restored],
        "restore identity": ["restore", store, "identity", f"{restored}.identity"],
        "evaluate": ["evaluate", store, restored],
    }
    results = {name: measure(arguments) for name, arguments in steps.items()}
    print("| step | seconds | memory, all processes | memory, largest process |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in results.items():
        gigabytes = f"{found.together / 1e9:.2f} GB | {found.largest / 1e9:.2f} GB"
        print(f"| {name} | {found.seconds:.1f} | {gigabytes} |")


if __name__ == "__main__":
    main()
