"""What short trainings gain on simulated volumes: python benchmarks/training.py FOLDER.

For each seed a volume of neurites under a known blur is simulated, converted, trained on, restored
and compared with the truth, each by the command that a user gives. The blur that the model has
learned is compared with the one that makes the measured volume of the truth.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watching import isosr, measure

VOXEL_SIZE, LATERAL, AXIAL = 0.5, 1.2, 3.6
"""In µm: of the truth, and widths (FWHM) of the simulated PSF."""


@dataclass
class Result:
    """What one training came to.

    Parameters
    ----------
    seconds : float
        Of training.
    before, after : dict
        Figures of the measured and of the restored volume.
    blur : list of str
        By how much the learned blur broadens a spot along z, y and x, in µm.
    """

    seconds: float
    before: dict[str, Any]
    after: dict[str, Any]
    blur: list[str]


def run_json(*arguments: object) -> Any:
    """Run a command of isosr-pipeline and return the JSON that it prints."""
    command = [str(part) for part in isosr(*arguments, "--json")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def train_on_a_simulation(folder: Path, seed: int, options: argparse.Namespace) -> Result:
    """Simulate, convert, train, restore and evaluate one volume."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    blurred, truth = folder / "blurred.tif", folder / "truth.tif"
    store, model, restored = folder / "v.zarr", folder / "model", folder / "r.zarr"
    scene = ["--scene", "neurites", "--shape", options.shape, "--photons", 1000]
    widths = ["--lateral-fwhm-um", LATERAL, "--axial-fwhm-um", AXIAL]
    measure(isosr("simulate", blurred, "--truth", truth, *scene, *widths, "--seed", seed))
    measure(isosr("convert", blurred, store))
    method = ["--width", options.width, "--crop", options.crop, "--batch", 2, "--threads", 1]
    method += ["--learning-rate", 0.001, "--beta1", 0.5, "--cycle-weight", 20, "--average", 0.98]
    end = ["--iterations", options.iterations, "--seed", seed]
    trained = measure(isosr("train", store, model, *method, *end))
    measure(isosr("restore", store, model, restored, "--block", 128))
    figures = run_json("evaluate", store, restored, "--reference", truth)
    blur = [f"{more['um']:.2f}" for more in run_json("psf", model)["broadening_um"].values()]
    before, after = (
        {**figures[when], **figures[when]["against_reference"]} for when in ("before", "after")
    )
    return Result(trained.seconds, before, after, blur)


def main() -> None:
    """Train on several simulated volumes, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shape", default="192")
    parser.add_argument("--width", default="8")
    parser.add_argument("--crop", default="32")
    parser.add_argument("--iterations", default="1000")
    options = parser.parse_args()
    lines = []
    for seed in range(options.seeds):
        found = train_on_a_simulation(options.folder / f"seed{seed}", seed, options)
        cells = [str(seed), f"{found.seconds / 60:.1f} min"]
        for name, digits in (("psnr_db", 2), ("ssim", 3), ("axial_lateral_ratio", 2)):
            cells.append(f"{found.before[name]:.{digits}f} → {found.after[name]:.{digits}f}")
        cells.append(" × ".join(found.blur))
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    true = math.sqrt(AXIAL**2 - LATERAL**2)
    print(f"The true blur is {true:.2f} µm along z, and less than a voxel along y and x.")
    print("| seed | training | PSNR, dB | SSIM | axial/lateral ratio | blur z × y × x, µm |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
