"""The figure of the demo, docs/demo.png: run `make demo`, then python benchmarks/demo_figure.py.

Three XZ planes of the demo: before restoration, after it, and in truth, at one intensity scale.
"""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import zarr

ROOT = Path(__file__).parents[1]
ROWS = (40, 64, 90)
GAP = 4


def main() -> None:
    """Write the figure."""
    demo = ROOT / "demo"
    volumes = [
        np.asarray(zarr.open_array(demo / "volume.zarr" / "0", mode="r")[0]),
        np.asarray(zarr.open_array(demo / "restored.zarr" / "0", mode="r")[0]),
        tifffile.imread(demo / "truth.tif"),
    ]
    brightest = np.percentile(volumes[-1], 99.8)
    rows = []
    for y in ROWS:
        planes = [np.clip(volume[:, y] / brightest, 0, 1) ** 0.6 for volume in volumes]
        padded = [np.pad(plane, GAP, constant_values=1.0) for plane in planes]
        rows.append(np.concatenate(padded, axis=1))
    picture = np.kron(np.concatenate(rows), np.ones((2, 2)))
    imagecodecs.imwrite(ROOT / "docs" / "demo.png", (255 * picture).astype(np.uint8))


if __name__ == "__main__":
    main()
