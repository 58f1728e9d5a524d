"""What short trainings with self-net gain on simulations: python benchmarks/self_net.py FOLDER.

For each scene a volume is simulated, converted, trained on, restored and compared with the truth,
each by the command that a user gives.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from training import run_json
from watching import isosr, measure


def train_on_a_scene(folder: Path, scene: str, options: argparse.Namespace) -> list[str]:
    """Simulate, convert, train, restore and evaluate one volume; return the cells of a table."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    blurred, truth = folder / "blurred.tif", folder / "truth.tif"
    store, model, restored = folder / "v.zarr", folder / "model", folder / "r.zarr"
    imaged = ["--scene", scene, "--shape", options.shape, "--photons", options.photons]
    imaged += ["--axial-fwhm-um", options.axial, "--z-step", options.z_step]
    measure(isosr("simulate", blurred, "--truth", truth, *imaged, "--seed", options.seed))
    measure(isosr("convert", blurred, store))
    method = ["--method", "self-net", "--width", options.width, "--blocks", options.blocks]
    method += ["--critic-width", options.width, "--crop", options.crop, "--batch", 2]
    method += ["--patch", 48, "--patches", options.patches, "--threads", 1, "--preview-every", 0]
    method += ["--learning-rate", options.learning_rate, "--average", 0.99]
    end = ["--iterations", options.iterations, "--seed", options.seed]
    trained = measure(isosr("train", store, model, *method, *end))
    measure(isosr("restore", store, model, restored, "--workers", 1))
    figures = run_json("evaluate", store, restored, "--reference", truth, "--workers", 1)
    before, after = (
        {**figures[when], **figures[when]["against_reference"]} for when in ("before", "after")
    )
    cells = [scene, f"{trained.seconds / 60:.1f} min"]
    for name, digits in (("psnr_db", 2), ("ssim", 3), ("axial_lateral_ratio", 2)):
        cells.append(f"{before[name]:.{digits}f} → {after[name]:.{digits}f}")
    return cells


def main() -> None:
    """Train on the scenes, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", nargs="+", default=["neurites", "cells", "beads"])
    parser.add_argument("--shape", default="112")
    parser.add_argument("--axial", default="3.6", help="FWHM in µm; 1.2 laterally")
    parser.add_argument("--photons", default="1000")
    parser.add_argument("--z-step", default="1")
    parser.add_argument("--width", default="16")
    parser.add_argument("--blocks", default="3")
    parser.add_argument("--crop", default="64")
    parser.add_argument("--patches", default="4")
    parser.add_argument("--learning-rate", default="0.001")
    parser.add_argument("--iterations", default="600")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    print("| scene | training | PSNR, dB | SSIM | axial/lateral ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for scene in options.scenes:
        cells = train_on_a_scene(options.folder / scene, scene, options)
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
