"""How fast restore is, and how lean: python benchmarks/restore.py FOLDER --slices S [WHAT...].

The input is the volume of a folder of TIFF slices (--slices), or what is tiled of it; what is made
is kept in FOLDER, and not made twice. Networks have random weights: how long they take does not
depend on them. WHAT is any of

- paper: the whole command beside itself with --scheme paper, for each --width;
- network: voxels a second of a restoration beside those of the network alone;
- identity: resampling only, beside a plain copy, shard by shard, with the same codec;
- memory: of the largest worker, for a volume and one eight times as large;
- precision: what bfloat16 changes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
import torch
from watching import isosr, measure

from isosr_models.model_folder import load_restorer, save_model
from isosr_models.precision import native_precision
from isosr_models.unet import UNet3d
from isosr_pipeline.geometry import Box, Zyx, context
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume

TURNS = 3
PROCESSES = os.cpu_count() or 1
CPU = torch.device("cpu")


def make_store(
    folder: Path, slices: Path, copies: tuple[int, int, int] = (1, 1, 1), size: int | None = None
) -> Path:
    """Convert the slices, tiled so many times along z, y, x and mirrored at each border.

    Of a size, so many voxels along each axis are taken first.
    """
    store = folder / f"volume-{'x'.join(map(str, copies))}{f'-{size}' if size else ''}.zarr"
    if not store.exists():
        real = np.stack([tifffile.imread(path) for path in sorted(slices.glob("*.tif"))])
        real = real[:size, :size, :size]
        for axis, count in enumerate(copies):
            parts = [np.flip(real, axis) if i % 2 else real for i in range(count)]
            real = np.concatenate(parts, axis)
        source = folder / "tiled.tif"
        tifffile.imwrite(source, real, bigtiff=True)
        measure(isosr("convert", source, store, "--voxel-size", 1, "--overwrite"))
        source.unlink()
    return store


def make_model(folder: Path, width: int) -> Path:
    """Save a network with random weights."""
    model = folder / f"model-{width}"
    if not model.exists():
        torch.manual_seed(0)
        network = UNet3d(width, residual=True)
        for module in network.modules():
            if isinstance(module, torch.nn.InstanceNorm3d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        torch.nn.init.normal_(network.head[0].weight, std=0.05)
        parameters = {"window_percentiles": (0.03, 99.97), "training": {}}
        save_model(model, {"generator": network}, method="ot-cyclegan", **parameters)
    return model


def restore_seconds(*arguments: object) -> tuple[float, float]:
    """Run restore; return how long all of it took, and how long the regions of level 0 did."""
    command = isosr("restore", *arguments, "--overwrite", "--device", "cpu")
    begin = time.monotonic()
    process = subprocess.run([str(p) for p in command], stderr=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(process.stderr)
    found = re.search(r"^restore: .* regions in (?:(\d+) min )?([\d.]+) s", process.stderr, re.M)
    minutes, seconds = found.groups() if found else (None, "nan")
    return time.monotonic() - begin, 60 * int(minutes or 0) + float(seconds)


def paper(folder: Path, options: argparse.Namespace) -> None:
    """Compare whole commands: ours as it is, ours in float32, and the publication's scheme.

    The publication's has one region, so that no core is computed for two, and one worker with all
    cores of the processor. A size of 120 + 90 n voxels is covered by its cores exactly.
    """
    store = make_store(folder, options.slices, size=options.size)
    whole = max(-(-n // 64) * 64 for n in Volume(store).shape[1:])
    published = ["--scheme", "paper", "--workers", 1, "--shard", whole]
    # A part of the volume would be one region, and the work of one worker.
    exact = ["--shard", 128] if options.size else []
    variants = {
        "as published": published,
        "exact, float32": ["--precision", "32", *exact],
        "exact": exact,
    }
    print("| restore, the whole command | width | seconds | times as fast |")
    print("| --- | ---: | ---: | ---: |")
    for width in options.width:
        model, out = make_model(folder, width), folder / "out.zarr"
        seconds = {
            name: restore_seconds(store, model, out, *given)[0] for name, given in variants.items()
        }
        for name, found in seconds.items():
            ratio = seconds["as published"] / found
            print(f"| {name} | {width} | {found:.1f} | {ratio:.1f} × |", flush=True)


def _alone(model: Path, shape: tuple[int, int, int], count: int, _number: int) -> float:
    """Run the network on blocks in memory; return the seconds that it took."""
    torch.set_num_threads(1)
    restorer = load_restorer(model, precision=native_precision(CPU))
    around = context(Box.whole(shape), restorer.halo, restorer.stride)
    block = torch.rand(1, 1, *around.read.shape)
    restorer(block, around.keep.slices)
    begin = time.perf_counter()
    for _ in range(count):
        restorer(block, around.keep.slices)
    return time.perf_counter() - begin


def in_processes(function: Callable[[int], float]) -> float:
    """Call a function in one process a core at a time, and return the longest of its seconds."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        return max(pool.map(function, range(PROCESSES)))


def network(folder: Path, options: argparse.Namespace) -> None:
    """Compare the regions of a restoration with the network alone on blocks of the same size."""
    store = make_store(folder, options.slices, (2, 2, 1))
    print("| voxels a second, blocks of 128³ | width | Mvoxel/s | of the network |")
    print("| --- | ---: | ---: | ---: |")
    for width in options.width:
        model, out = make_model(folder, width), folder / "out.zarr"
        shape = (128, 128, 128)
        _, seconds = restore_seconds(store, model, out, "--block", "128")
        # The far blocks are cut off by the border, and smaller ones are mostly halo.
        voxels = np.prod(Volume(out).shape)
        count = 4
        alone = in_processes(partial(_alone, model, shape, count))
        bare = PROCESSES * count * np.prod(shape) / alone
        rate = voxels / seconds
        print(f"| the network alone | {width} | {bare / 1e6:.2f} | |")
        print(f"| restore | {width} | {rate / 1e6:.2f} | {rate / bare:.0%} |", flush=True)


def _copy(store: Path, out: Path, number: int) -> float:
    """Copy every n-th shard of a volume; return the seconds that it took."""
    reader, volume = LevelReader(Volume(store)), Volume(out, writable=True)
    shape = volume.shape
    spec = VolumeSpec(shape, volume.dtype, volume.voxel_size, volume.chunk, volume.shard(), ("a",))
    grid = spec.regions()
    begin = time.perf_counter()
    for index in range(number, len(grid), PROCESSES):
        box = grid[index].box
        volume.write(0, box, reader.read(0, box))
    return time.perf_counter() - begin


def identity(folder: Path, options: argparse.Namespace) -> None:
    """Compare the identity with a copy, by turns; both write and sync the same files."""
    store = make_store(folder, options.slices, (3, 3, 3))
    seconds: dict[str, list[float]] = {"copy": [], "identity": []}
    for _ in range(TURNS):
        out = folder / "out.zarr"
        seconds["identity"].append(restore_seconds(store, "identity", out)[1])
        made = Volume(out)
        spec = VolumeSpec(made.shape, made.dtype, made.voxel_size, made.chunk, made.shard(), ("a",))
        copy = folder / "copy.zarr"
        shutil.rmtree(copy, ignore_errors=True)
        create_volume(copy, spec, StoreAttributes())
        seconds["copy"].append(in_processes(partial(_copy, store, copy)))
    size = np.prod(made.shape) * made.dtype.itemsize
    print("| level 0 | seconds | MB/s | of the copy |\n| --- | ---: | ---: | ---: |")
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in middle.items():
        rate, share = size / found / 1e6, middle["copy"] / found
        print(f"| {name} | {found:.1f} | {rate:.0f} | {share:.0%} |")


def memory(folder: Path, options: argparse.Namespace) -> None:
    """Compare the peak memory of workers for volumes of two sizes."""
    print("| volume | network | largest worker |\n| --- | --- | ---: |")
    model = make_model(folder, min(options.width))
    for name in ("identity", model):
        for copies in ((1, 1, 1), (2, 2, 2)):
            store = make_store(folder, options.slices, copies)
            # Small ones, so that the smaller volume has regions too that no border cuts off.
            cut = ["--shard", "64", "--block", "64", "--device", "cpu", "--overwrite"]
            found = measure(isosr("restore", store, name, folder / "out.zarr", *cut))
            shape = " × ".join(map(str, Volume(store).shape[1:]))
            what = name if name == "identity" else f"width {min(options.width)}"
            print(f"| {shape} | {what} | {found.largest / 1e6:.0f} MB |", flush=True)


def precision(folder: Path, options: argparse.Namespace) -> None:
    """Compare bfloat16 with float32, on a model that was trained if one is given."""
    store = make_store(folder, options.slices)
    model = options.model or make_model(folder, min(options.width))
    results = []
    for name in ("32", "bf16"):
        out = folder / f"{name}.zarr"
        restore_seconds(store, model, out, "--precision", name)
        volume = Volume(out)
        results.append(volume.read(0, Box.whole(volume.shape[1:])).astype(np.float64))
    window = Volume(store).window(0, (0.03, 99.97))
    width = window.high - window.low
    off = np.abs(results[0] - results[1])
    changed = np.sqrt(np.mean((results[0] - read_input(store)) ** 2))
    print(json.dumps({
        "window": width,
        "rms": round(float(np.sqrt(np.mean(off**2))), 3),
        "largest": float(off.max()),
        "rms of what restoration changes": round(float(changed), 3),
    }, indent=2))  # fmt: skip


def read_input(store: Path) -> np.ndarray:
    """Read a volume whole."""
    volume = Volume(store)
    return volume.read(0, Box.whole(Zyx(*volume.shape[1:]))).astype(np.float64)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = {f.__name__: f for f in (paper, network, identity, memory, precision)}
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", nargs="*", default=list(every), metavar="WHAT")
    parser.add_argument("--slices", type=Path, required=True)
    parser.add_argument("--width", type=int, nargs="+", default=[16])
    parser.add_argument("--model", type=Path, help="for precision: one that was trained")
    parser.add_argument("--size", type=int, help="for paper: so many voxels along each axis")
    options = parser.parse_args()
    if unknown := set(options.what) - set(every):
        sys.exit(f"WHAT is {', '.join(sorted(unknown))}; known are {', '.join(every)}")
    options.folder.mkdir(exist_ok=True)
    for name in options.what:
        every[name](options.folder, options)


if __name__ == "__main__":
    main()
