"""The axial blur of simulated volumes, told blindly and true: python benchmarks/axial_blur.py.

Prints the table of docs/method.md: for each scene, blur and distance of planes the mean and the
scatter over some seeds, and how often the interval of 95 % holds the truth.
"""

from __future__ import annotations

import argparse
import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.blur.axial import Square, estimate
from isosr_pipeline.blur.power_spectra import SpectralGrid
from isosr_pipeline.simulation.volume import SCENES, Acquisition, simulate
from isosr_pipeline.widths import FWHM_PER_SIGMA

LATERAL, EDGE = 1.2, 64


def told(image: NDArray[np.uint16], step: int) -> Square:
    """Estimate the blur of a volume from all of its sub-volumes that overlap by half."""
    size = (round(EDGE / step), EDGE, EDGE)
    grid = SpectralGrid(size, float(step))
    starts = [range(0, n - s + 1, s // 2) for n, s in zip(image.shape, size, strict=True)]
    places = list(product(*starts))
    boxes = [tuple(slice(a, a + n) for a, n in zip(p, size, strict=True)) for p in places]
    depths = [(p[0] + size[0] / 2) * step for p in places]
    found = estimate(grid, [grid.spectrum(image[box]) for box in boxes], depths)
    if found is None:
        raise SystemExit("nothing could be told")
    return found.lateral


def main() -> None:
    """Print a line for each scene, blur and distance of planes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    print("| scene | FWHM z/xy | step | true sigma | told | scatter | held |")
    for scene, times, step in product(SCENES, (1.0, 2.0, 3.3), (1, 3)):
        acquisition = Acquisition(axial_fwhm_um=times * LATERAL, z_step=step)
        width = LATERAL / acquisition.voxel_size_um / FWHM_PER_SIGMA
        true = width * math.sqrt(times**2 - 1)
        shape = (options.side,) * 3
        found = [
            told(simulate(scene, shape, acquisition, s).image, step) for s in range(options.seeds)
        ]
        sigmas = [square.sigma for square in found]
        held = sum(q.interval[0] <= true <= q.interval[1] for q in found)
        print(
            f"| {scene} | {times:g} | {step} | {true:.2f} | {np.mean(sigmas):.2f} | "
            f"{np.std(sigmas):.2f} | {held} of {len(found)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
