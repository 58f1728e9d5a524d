"""A volume and what restore made of it: python benchmarks/planes.py BEFORE AFTER OUT.png.

Two rows, before and after; three columns: an XY, an XZ (z downwards) and a YZ plane (z rightwards)
through one voxel, all at one intensity scale.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.store.volume import Volume

GAP = 4


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("before", "after", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--at", default="150,150,150", help="the voxel z,y,x")
    parser.add_argument("--edge", type=int, default=160, help="of each plane, in voxels")
    parser.add_argument("--scale", type=int, default=2, help="pixels a voxel")
    options = parser.parse_args()
    centre = [int(part) for part in options.at.split(",")]
    start = Zyx(*(c - options.edge // 2 for c in centre))
    box = Box(start, Zyx(*(a + options.edge for a in start)))
    cubes = [IsotropicView(Volume(path)).read(0, box) for path in (options.before, options.after)]
    low, high = np.percentile(cubes[0], [1, 99.7])
    rows = [row(np.clip((cube - low) / (high - low), 0, 1) ** 0.7) for cube in cubes]
    gap = np.ones((GAP, rows[0].shape[1]), np.float32)
    picture = np.concatenate([rows[0], gap, rows[1]])
    picture = np.kron(picture, np.ones((options.scale, options.scale)))
    imagecodecs.imwrite(options.out, np.rint(255 * picture).astype(np.uint8))


def row(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the middle planes of a cube side by side."""
    middle = len(cube) // 2
    gap = np.ones((len(cube), GAP), np.float32)
    xy, xz, yz = cube[middle], cube[:, middle], cube[:, :, middle].T
    return np.concatenate([xy, gap, xz, gap, yz], axis=1)


if __name__ == "__main__":
    main()
