"""Time and peak memory of each step on one source: python benchmarks/steps.py SOURCE FOLDER.

Every step is the command of its own that a user runs. Memory is the sum of the resident memory of
the driver and all its workers, seen 20 times a second, and that of the largest process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from watching import isosr, measure


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
    results = {name: measure(isosr(*arguments)) for name, arguments in steps.items()}
    print("| step | seconds | memory, all processes | memory, largest process |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in results.items():
        gigabytes = f"{found.together / 1e9:.2f} GB | {found.largest / 1e9:.2f} GB"
        print(f"| {name} | {found.seconds:.1f} | {gigabytes} |")


if __name__ == "__main__":
    main()
