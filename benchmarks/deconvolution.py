"""Richardson-Lucy deconvolution of simulated volumes: python benchmarks/deconvolution.py.

Prints the table of docs/method.md: PSNR against the truth, after a fit of gain and offset, and the
ratio of axial to lateral spectrum, of the input and of what is restored with the true PSF.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isosr_models.richardson_lucy import RichardsonLucyRestorer
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.transforms import Transform
from isosr_pipeline.geometry import Box, context
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.store.intensity import CONFOCAL
from isosr_pipeline.training.settings import RichardsonLucySettings

VOLUMES = (("neurites", 1), ("neurites", 3), ("cells", 1), ("beads", 1))
LATERAL, AXIAL = 1.2, 3.6
WAYS: dict[str, dict[str, Any]] = {
    "to lateral resolution": {"axial_fwhm": AXIAL, "lateral_fwhm": LATERAL},
    "the axial blur only": {"axial_fwhm": sqrt(AXIAL**2 - LATERAL**2)},
    "full": {"axial_fwhm": AXIAL, "lateral_fwhm": LATERAL, "resolution": "full"},
}


@dataclass(frozen=True)
class Measured:
    """A simulated image, as a volume is read."""

    voxels: NDArray[np.uint16]
    voxel_size: tuple[float, float, float]
    path: Path = Path("simulated")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of c, z, y, x."""
        return (1, *self.voxels.shape)  # type: ignore[return-value]

    def read(self, _channel: int, box: Box) -> NDArray[np.uint16]:
        """Read a box."""
        return self.voxels[box.slices]


def main() -> None:
    """Print a line for each volume and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, nargs="+", default=[10])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| scene | plane distance | way | iterations | PSNR | axial/lateral ratio |")
    for scene, step in VOLUMES:
        acquisition = Acquisition(
            lateral_fwhm_um=LATERAL, axial_fwhm_um=AXIAL, z_step=step, photons=200, background=10
        )
        simulated = simulate(scene, (options.side,) * 3, acquisition, options.seed)
        view = IsotropicView(Measured(simulated.image, simulated.image_voxel_size))
        truth = simulated.truth[: view.shape.z]
        _print(scene, step, "input", 0, truth, view.read(0, Box.whole(view.shape)))
        for iterations in options.iterations:
            for way, parameters in WAYS.items():
                settings = RichardsonLucySettings(**parameters, iterations=iterations)
                restored = _restored(view, simulated.image, settings)
                _print(scene, step, way, iterations, truth, restored)


def _restored(
    view: IsotropicView, image: NDArray[np.uint16], settings: RichardsonLucySettings
) -> NDArray[np.float32]:
    low, high = np.percentile(image, CONFOCAL)
    network = deconvolution(settings, view.voxel_size[2])
    restorer = RichardsonLucyRestorer(network, torch.device("cpu"))
    block = context(Box.whole(view.shape), restorer.halo, restorer.stride)
    window = (view.read(0, block.read) - np.float32(low)) / np.float32(high - low)
    found = restorer(torch.from_numpy(window)[None, None], block.keep.slices)
    return found[0, 0].numpy() * np.float32(high - low) + np.float32(low)


def _print(
    scene: str, step: int, way: str, iterations: int, truth: NDArray[Any], image: NDArray[Any]
) -> None:
    moments, spectrum = Moments(), SpectrumRatio()
    moments.update(truth, image)
    for z in range(0, image.shape[0] - 63, 32):
        for y in range(0, image.shape[1] - 63, 32):
            for x in range(0, image.shape[2] - 63, 32):
                cube = image[z : z + 64, y : y + 64, x : x + 64]
                spectrum += SpectrumRatio.of(Transform(cube))
    print(
        f"| {scene} | {step} | {way} | {iterations} | {moments.psnr(fitted=True):.2f} | "
        f"{spectrum.ratio:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
