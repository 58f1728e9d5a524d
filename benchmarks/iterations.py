"""Iterations a second of a training, and what bounds them.

    python benchmarks/iterations.py STORE [--width 64 --crop 144 --loaders 4 --compile]
    python benchmarks/iterations.py --synthetic

Steps are those of `isosr-pipeline train`, on crops that loaders read of a store; with --synthetic
on random crops that are on the device already, which needs no more than torch, lightning-fabric,
pydantic and scipy. Prints how long steps take and wait for data, the peak memory, and the
operations that take the most time. At the defaults this is the preset cfm at full width.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from isosr_models.compiling import compile_network
from isosr_models.execution import Execution
from isosr_models.ot_cyclegan import OTCycleGAN, OTCycleGANConfig

_TARGET = 5.0
"""Iterations a second that an H200 should reach at the defaults."""
_RANDOM_CROPS = 4


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--crop", type=int, default=144)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--planes", type=int, default=8)
    parser.add_argument("--blur", choices=("deep-linear", "unet"), default="deep-linear")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--profiled", type=int, default=3, metavar="STEPS")
    parser.add_argument("--top", type=int, default=12, metavar="OPERATIONS")
    parser.add_argument("--loaders", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--precision", choices=("32", "bf16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    if (options.store is None) != options.synthetic:
        parser.error("give a STORE or --synthetic")
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.precision = options.precision or ("bf16" if options.device == "cuda" else "32")
    return options


def main() -> None:
    """Take steps and print what they took."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    precision = "bf16-mixed" if options.precision == "bf16" else "32-true"
    fabric = Fabric(accelerator=options.device, devices=1, precision=precision)
    fabric.launch()
    torch.manual_seed(0)
    objective = _objective(options, fabric)
    layout = torch.channels_last_3d if options.channels_last else torch.contiguous_format
    crops = _random_crops(options) if options.synthetic else _stored_crops(options)
    stream = (crop.contiguous(memory_format=layout) for crop in crops)
    begin = time.perf_counter()
    for crop in itertools.islice(stream, options.warm_up):
        objective.step(crop)
    print(f"{options.warm_up} steps to warm up: {time.perf_counter() - begin:.1f} s")
    _measure(objective, stream, options)
    _profile(objective, stream, options)


def _objective(options: argparse.Namespace, fabric: Fabric) -> OTCycleGAN:
    config = OTCycleGANConfig(
        width=options.width,
        planes=options.planes,
        blur=options.blur,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    objective = OTCycleGAN(config, fabric.device)
    objective.execution = Execution(fabric)
    if options.channels_last:
        objective.generator.to(memory_format=torch.channels_last_3d)
    if options.compile:
        example = torch.zeros((options.batch, 1, *[options.crop] * 3), device=fabric.device)
        why = compile_network(objective.generator, example, objective.execution)
        print(f"not compiled: {why}" if why else "the generator is compiled")
    return objective


def _random_crops(options: argparse.Namespace) -> Iterator[Tensor]:
    shape = (_RANDOM_CROPS, options.batch, 1, *[options.crop] * 3)
    return itertools.cycle(torch.rand(shape, device=options.device))


def _stored_crops(options: argparse.Namespace) -> Iterator[Tensor]:
    # Imported here, since a machine for --synthetic may not have what reads stores.
    from isosr_pipeline.geometry import Zyx
    from isosr_pipeline.settings import DEFAULT_PERCENTILES
    from isosr_pipeline.store.volume import Volume
    from isosr_pipeline.training.crops import Crops
    from isosr_pipeline.training.loading import batches
    from isosr_pipeline.training.settings import OTCycleGANSettings
    from isosr_pipeline.training.stored_crops import prepare

    volume = Volume(options.store)
    found = [volume.window(c, DEFAULT_PERCENTILES) for c in range(volume.shape[0])]
    windows = [[(window.low, window.high) for window in found]]
    crops = Crops([options.store], Zyx(*[options.crop] * 3), windows, seed=0, rotations=True)
    settings = OTCycleGANSettings(
        crop=options.crop, batch=options.batch, loaders=options.loaders, iterations=1
    )
    device = torch.device(options.device)
    return (prepare(stored, device) for stored in batches(crops, settings, 0, device))


def _measure(objective: OTCycleGAN, stream: Iterator[Tensor], options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken, waited = [], 0.0
    begin = time.perf_counter()
    for _ in range(options.steps):
        asked = time.perf_counter()
        crop = next(stream)
        got = time.perf_counter()
        # A step ends with its losses as numbers, for which it waits for the device.
        objective.step(crop)
        waited += got - asked
        taken.append(time.perf_counter() - got)
    seconds = time.perf_counter() - begin
    print(
        f"width {options.width}, crops of {options.crop}³, {options.batch} a step, "
        f"{options.precision} on {_device_name(options.device)}: "
        f"{options.steps / seconds:.3g} iterations/s (the target on an H200 is {_TARGET:g})"
    )
    print(
        f"a step takes {1000 * np.median(taken):.1f} ms (median; {1000 * max(taken):.1f} at the "
        f"most), and {waited / seconds:.1%} of the time is waiting for data"
    )
    print(f"peak memory: {_peak_memory(options.device) / 1e9:.2f} GB")


def _profile(objective: OTCycleGAN, stream: Iterator[Tensor], options: argparse.Namespace) -> None:
    """Print which operations the time goes to."""
    on_gpu = options.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    crops = list(itertools.islice(stream, options.profiled))
    if not crops:
        return
    begin = time.perf_counter()
    with profile(activities=activities) as profiler:
        for crop in crops:
            objective.step(crop)
    seconds = time.perf_counter() - begin

    def own(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    events = sorted(profiler.key_averages(), key=own, reverse=True)
    total = sum(map(own, events))
    print(
        f"{total / 1e6 / len(crops):.3f} s of work a step, {total / 1e6 / seconds:.0%} of the time "
        "under the profiler; of which"
    )
    for event in events[: options.top]:
        print(f"{own(event) / total:6.1%}  {event.count / len(crops):6.0f} times  {event.key[:70]}")


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "the processor"


def _peak_memory(device: str) -> float:
    """Return the most memory in bytes: of the GPU's tensors, or of this process."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
