"""What frozen normalisation costs: PSNR against the truth, with it and with per-block statistics.

    python benchmarks/frozen_norm.py MODEL VOLUME TRUTH

VOLUME is a store with isotropic voxels (simulate, then convert), TRUTH the TIFF file of its truth.
Prints a table of PSNR after a fit of gain and offset. Frozen statistics must not lose more than
0.1 dB against per-block ones, of the whole volume at once or of blocks with a halo, whichever is
better; exits with 1 if they do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
import torch

from isosr_models.model_folder import load_restorer, read_description
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.store.volume import Volume

BLOCK, HALO = 64, 32
LARGEST_LOSS = 0.1


def main() -> None:
    """Restore the volume in each way and compare."""
    torch.set_num_threads(1)
    model, store, truth = map(Path, sys.argv[1:])
    volume = Volume(store)
    view = IsotropicView(volume)
    description = read_description(model)
    if description.window is None:
        recorded = volume.window(0, description.window_percentiles)
        window = recorded.low, recorded.high
    else:
        window = description.window
    reference = tifffile.imread(truth)
    whole = max(view.shape)
    figures = {"input": _psnr(reference, view.read(0, Box(Zyx(0, 0, 0), view.shape)))}
    for statistics in ("frozen", "block"):
        restorer = load_restorer(model, statistics=statistics)
        for block, name in ((whole, "whole volume"), (BLOCK, f"blocks of {BLOCK}")):
            restored = _restore(view, restorer, window, block)
            figures[f"{statistics}, {name}"] = _psnr(reference, restored)
    for name, psnr in figures.items():
        print(f"{name:<24} {psnr:.2f} dB")
    best = max(psnr for name, psnr in figures.items() if name.startswith("block"))
    gain = figures[f"frozen, blocks of {BLOCK}"] - best
    print(f"frozen less the better of per-block: {gain:+.2f} dB")
    sys.exit(int(gain < -LARGEST_LOSS))


def _restore(view, restorer, window, block):  # type: ignore[no-untyped-def]
    low, high = window
    out = np.empty(view.shape, np.float32)
    for corner in np.ndindex(*(-(-length // block) for length in view.shape)):
        start = [block * c for c in corner]
        stop = [min(s + block, n) for s, n in zip(start, view.shape, strict=True)]
        read = Box(Zyx(*(s - HALO for s in start)), Zyx(*(s + HALO for s in stop)))
        data = (view.read(0, read) - np.float32(low)) / np.float32(high - low)
        block = torch.from_numpy(np.ascontiguousarray(data))[None, None]
        inner = tuple(slice(HALO, n - HALO) for n in data.shape)
        out[tuple(map(slice, start, stop))] = restorer(block, inner)[0, 0].numpy()
    return out


def _psnr(reference, image):  # type: ignore[no-untyped-def]
    moments = Moments()
    moments.update(reference, image)
    return moments.psnr(fitted=True)


if __name__ == "__main__":
    main()
