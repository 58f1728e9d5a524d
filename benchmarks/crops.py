"""Crops that loaders read of a store: python benchmarks/crops.py STORE [--loaders 4].

Crops are drawn, read and sent to the training process just as `isosr-pipeline train` does it. With
--step, each batch is also prepared and slept on for so many milliseconds (as the processor does
beside a GPU), and the share of time that such steps wait for data counts. --parts tells what a crop
costs in one process, without loaders.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from isosr_pipeline.geometry import Zyx
from isosr_pipeline.settings import DEFAULT_PERCENTILES
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.crops import Crops
from isosr_pipeline.training.loading import batches
from isosr_pipeline.training.settings import OTCycleGANSettings
from isosr_pipeline.training.stored_crops import prepare

_WARM_UP = 8


def main() -> None:
    """Measure and print a line, or a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--crop", type=int, default=144)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--loaders", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--step", type=float, default=0.0, metavar="MS")
    parser.add_argument("--sampling", choices=("foreground", "uniform"), default="foreground")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    volume = Volume(options.store)
    found = [volume.window(c, DEFAULT_PERCENTILES) for c in range(volume.shape[0])]
    windows = [[(window.low, window.high) for window in found]]
    crop = Zyx(*[options.crop] * 3)
    crops = Crops([options.store], crop, windows, seed=0, sampling=options.sampling)
    begin = time.perf_counter()
    _ = crops.sampler
    print(f"looking for foreground: {time.perf_counter() - begin:.2f} s")
    if options.parts:
        _parts(crops, options.steps, torch.device(options.device))
    else:
        _loaders(crops, options)


def _loaders(crops: Crops, options: argparse.Namespace) -> None:
    settings = OTCycleGANSettings(
        crop=crops.crop, batch=options.batch, loaders=options.loaders, iterations=1
    )
    begin = time.perf_counter()
    device = torch.device(options.device)
    stream = batches(crops, settings, 0, device)
    for _ in islice(stream, _WARM_UP):
        pass
    started = time.perf_counter()
    waited = 0.0
    for _ in range(options.steps):
        asked = time.perf_counter()
        stored = next(stream)
        waited += time.perf_counter() - asked
        if options.step:
            prepare(stored, device)
            time.sleep(options.step / 1000)
    seconds = time.perf_counter() - started
    print(
        f"{options.loaders} loaders, batches of {options.batch}, steps of {options.step:.0f} ms: "
        f"{options.steps * options.batch / seconds:.1f} crops/s, "
        f"{waited / seconds:.1%} of the time waiting; {started - begin:.1f} s to start"
    )


def _parts(crops: Crops, steps: int, device: torch.device) -> None:
    sampler = crops.sampler
    stored = [default_collate([crops[index]]) for index in range(3)]
    print(f"{stored[0].voxels.nbytes / 1e6:.1f} MB a crop are sent to the device")
    parts: dict[str, Callable[[int], object]] = {
        "draw a place": lambda n: sampler.draw(np.random.default_rng(n)),
        "draw and read (a loader's work)": lambda n: crops[n],
        "prepare (the device's work)": lambda n: prepare(stored[n % 3], device),
    }
    for name, part in parts.items():
        taken, worked = [], time.process_time()
        for index in range(steps):
            begin = time.perf_counter()
            part(index)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - begin)
        worked = (time.process_time() - worked) / steps
        print(f"{name}: median {1000 * np.median(taken):.1f} ms, processor {1000 * worked:.1f} ms")


if __name__ == "__main__":
    main()
