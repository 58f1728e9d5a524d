"""Volumes or slices: python benchmarks/volume_network.py --scenes neurites cells --ratios 2 3.3.

Shows whether a 3D network that learns from the pairs of self-blur is better for its cost than the
2D one, which restores slices. For each scene and ratio of axial to lateral FWHM a volume is
simulated to train on and another to be restored, the true blur is given, and networks are trained
for the same CPU time with one thread:

- 2D: the method as it is, on one crop a step;
- 3D, restored: a U-Net of the same shape on blocks of the volume as a 2D network has restored it,
  blurred along y or x. The 2D network has a quarter of the time, to its end;
- 3D, measured: the same U-Net on blocks of the volume as it was measured.

Prints a table. How many steps fit depends on the machine, and so do results.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from bead_widths import bead_widths, lonely_beads
from numpy.typing import NDArray
from torch import Tensor, nn

from isosr_models.configs import Degradation, SelfBlurConfig
from isosr_models.degradation import Noise, Pair, degrade, degrade_clean
from isosr_models.self_blur import SelfBlur
from isosr_models.unet2d import UNet2d
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.simulation.acquisition import SCENE_WIDTHS_UM, Acquisition
from isosr_pipeline.simulation.volume import SCENES, simulate
from isosr_pipeline.store.intensity import CONFOCAL
from isosr_pipeline.widths import FWHM_PER_SIGMA

LATERAL = 1.2
CROP, EDGE, BLOCKS = 64, 32, 3
"""Sides of 2D training's crops and of 3D training's blocks, in voxels, and blocks of a step."""

GAINS = (0.5, 3.0)
RATE, FALLING, LOWEST_RATE = 1e-3, 1 / 2, 0.01
Draw = Callable[[], tuple[Tensor, ...]]

FIRST = 0.25
"""Share of the time that belongs to the 2D network which restores the 3D one's volume."""


@dataclass(frozen=True)
class Case:
    """Volumes to train on and to restore, (z, y, x) float32 in window units, and what is true.

    `truth` is that of `held`; `widths` are axial and lateral FWHM of the PSF in voxels.
    """

    seen: Tensor
    held: Tensor
    truth: NDArray[np.uint16]
    known: Degradation
    widths: tuple[float, float]


@dataclass(frozen=True)
class Trained:
    """A network, and how many steps fitted in its time."""

    name: str
    network: nn.Module
    steps: int


def unet3d(width: int) -> UNet2d:
    """Return the U-Net of self-blur with 3D layers in place of 2D ones, as it is initialised."""
    network = UNet2d(width)
    for name, flat in list(network.named_modules()):
        if isinstance(flat, nn.Conv2d | nn.ConvTranspose2d):
            kind = nn.Conv3d if isinstance(flat, nn.Conv2d) else nn.ConvTranspose3d
            channels, size = (flat.in_channels, flat.out_channels), flat.kernel_size[0]
            layer = kind(*channels, size, flat.stride[0], int(flat.padding[0]))
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            network.set_submodule(name, layer)
    nn.init.zeros_(network.head.weight)
    network.pool = nn.MaxPool3d(2)
    return network


def simulated(scene: str, ratio: float, options: argparse.Namespace) -> Case:
    """Simulate two volumes under one blur, with planes as far apart as voxels are."""
    lateral = SCENE_WIDTHS_UM.get(scene, (LATERAL,))[0]
    psf = {"lateral_fwhm_um": lateral, "axial_fwhm_um": lateral * ratio}
    acquisition = Acquisition(**psf, photons=options.photons)
    shape = (options.side,) * 3
    seen, held = (simulate(scene, shape, acquisition, options.seed + i) for i in range(2))
    # Scalars of NumPy would make float64 of float32.
    low, high = map(float, np.percentile(seen.image, CONFOCAL))
    units = ((v.image.astype(np.float32) - low) / (high - low) for v in (seen, held))
    width = lateral / acquisition.voxel_size_um
    square = (width / FWHM_PER_SIGMA) ** 2 * (ratio**2 - 1)
    # Counts are photons: their variance is their mean.
    noise = {"noise_gain": 1 / (high - low), "noise_floor": low / (high - low) ** 2}
    known = Degradation(square_x=square, square_y=square, error=0.0, **noise)
    return Case(*map(torch.from_numpy, units), held.truth, known, (width * ratio, width))


def draw_crop(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Cut out a crop by chance, and mirror it by chance along each axis."""
    starts = [int(torch.randint(n - s + 1, ())) for n, s in zip(volume.shape, shape, strict=True)]
    crop = volume[tuple(slice(a, a + s) for a, s in zip(starts, shape, strict=True))]
    return crop.flip([axis for axis in range(3) if torch.rand(()) < 0.5])


def draw_block(volume: Tensor, known: Degradation, make: Callable[..., Pair]) -> tuple[Tensor, ...]:
    """Draw a block and blur it along y or x, which takes the place of z."""
    along = 1 + int(torch.randint(2, ()))
    crop = draw_crop(volume, tuple(2 * EDGE if axis == along else EDGE for axis in range(3)))
    crop = crop.movedim(along, 0)
    if torch.rand(()) < 0.5:
        crop = crop.transpose(1, 2)
    square = known.square_y if along == 1 else known.square_x
    gain = torch.exp(torch.empty(1).uniform_(*map(math.log, GAINS)))
    noise = Noise(known.noise_gain, known.noise_floor)
    sigma, phase = torch.full((1,), math.sqrt(square)), torch.zeros(1)
    pair = make(crop.reshape(1, 2 * EDGE, EDGE**2), sigma, phase, 1.0, noise, gain)
    # Beyond the ends of a crop its mirror image was blurred.
    kept = slice(EDGE // 2, EDGE // 2 + EDGE)
    return tuple(lines.reshape(crop.shape)[kept] for lines in pair)


def shares(seconds: float) -> Iterator[float]:
    """Yield the share of some CPU time that is used up, until all is."""
    begin = time.process_time()
    while (used := time.process_time() - begin) < seconds:
        yield used / seconds


def train_slices(name: str, case: Case, seconds: float) -> Trained:
    """Train as self-blur does."""
    objective, steps = SelfBlur(SelfBlurConfig(), case.known, 1.0, torch.device("cpu")), 0
    for share in shares(seconds):
        objective.set_share(share)
        objective.step(draw_crop(case.seen, (CROP,) * 3)[None, None])
        steps += 1
    return Trained(name, objective.restorer, steps)


def train_blocks(name: str, draw: Draw, seconds: float, width: int) -> Trained:
    """Train a 3D network on blocks."""
    network, steps = unet3d(width), 0
    # Steps take less time.
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    for share in shares(seconds):
        adam.param_groups[0]["lr"] = RATE * max(LOWEST_RATE, min(1.0, (1 - share) / FALLING))
        pairs = [draw() for _ in range(BLOCKS)]
        blurred, sharp = (torch.stack(blocks)[:, None] for blocks in zip(*pairs, strict=True))
        loss = (network(blurred) - sharp).abs().mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        steps += 1
    return Trained(name, network, steps)


def train_all(case: Case, options: argparse.Namespace) -> Iterator[Trained]:
    """Train in all ways, from the same seed each."""
    torch.manual_seed(options.seed)
    yield train_slices("2D", case, options.seconds)
    torch.manual_seed(options.seed)
    begin = time.process_time()
    first = train_slices("2D, for 3D", case, FIRST * options.seconds)
    volume = restored(first.network, case.seen)
    left = options.seconds - (time.process_time() - begin)
    yield first
    draw = partial(draw_block, volume, case.known, degrade_clean)
    yield train_blocks("3D, restored", draw, left, options.width)
    torch.manual_seed(options.seed)
    draw = partial(draw_block, case.seen, case.known, degrade)
    yield train_blocks("3D, measured", draw, options.seconds, options.width)


def restored(network: nn.Module, volume: Tensor) -> Tensor:
    """Restore a volume."""
    with torch.no_grad():
        result: Tensor = network(volume[None, None])[0, 0]
    return result


def main() -> None:
    """Print a line for each scene, ratio and network."""
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["neurites", "cells"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.3])
    parser.add_argument("--seconds", type=float, default=120, help="CPU time of a training")
    parser.add_argument("--width", type=int, default=12, help="of the 3D network")
    parser.add_argument("--side", type=int, default=128, help="of volumes, a multiple of 4")
    parser.add_argument("--photons", type=float, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.side < CROP or options.side % 4:
        parser.error(f"--side {options.side} is not a multiple of 4 of {CROP} or more")
    torch.set_num_threads(1)
    print("| scene, ratio | network | parameters | steps | PSNR | beads z × xy | voxels/s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for scene, ratio in itertools.product(options.scenes, options.ratios):
        case = simulated(scene, ratio, options)
        for trained in train_all(case, options):
            print_row(f"{scene}, {ratio:g}", case, trained, scene == "beads")


def print_row(title: str, case: Case, trained: Trained, beads: bool) -> None:
    """Restore the volume that was held out, and print what came of it."""
    begin = time.process_time()
    found = restored(trained.network, case.held).numpy()
    rate = found.size / (time.process_time() - begin)
    before, after = Moments(), Moments()
    before.update(case.truth, case.held.numpy())
    after.update(case.truth, found)
    count = sum(weights.numel() for weights in trained.network.parameters())
    print(
        f"| {title} | {trained.name} | {count} | {trained.steps} | "
        f"{before.psnr(fitted=True):.2f} → {after.psnr(fitted=True):.2f} dB | "
        f"{widths_of_beads(case, found) if beads else ''} | {rate:.0f} |",
        flush=True,
    )


def widths_of_beads(case: Case, volume: NDArray[Any]) -> str:
    """Fit the beads, and once more in boxes of the size that is found."""
    centres = lonely_beads(case.truth, *case.widths)
    first = bead_widths(volume, centres, *case.widths)
    found = bead_widths(volume, centres, first.axial, first.lateral) if first.beads else first
    return f"{found.axial:.2f} × {found.lateral:.2f}"


if __name__ == "__main__":
    main()
