"""How well `trust` tells what explains a measured volume from what does not.

::

    python benchmarks/trust.py clean     truths of simulated volumes: nothing may be flagged
    python benchmarks/trust.py edits     structures painted in, and erased
    python benchmarks/trust.py models    what deconvolution restores

Volumes are simulated, so that their truth is known; its axes are (z, y, x). One worker.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isosr_cluster.clients import OpenClient, open_client
from isosr_pipeline.geometry import Box
from isosr_pipeline.settings import ConvertSettings, RestoreSettings, TrustSettings
from isosr_pipeline.simulation.volume import Acquisition, Simulated, simulate
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.steps.trust import trust
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.tiffs import write_tiff
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.trust.summary import ChannelTrust

SHAPE = (96, 128, 128)
SCENES = ("neurites", "cells", "beads")
PHOTONS = (20.0, 200.0, 5000.0)
STEPS = (1, 3)
SEEDS = (0, 1)
BACKGROUND = 10.0
_SIGMA = 1.2 / 2.3548 / 0.5
_RADIUS = 6
_CELL = 8

Floats = NDArray[np.float32]
Edited = tuple[Floats, list[NDArray[np.intp]]]
"""A volume, and the middles of what was painted into it or erased."""

Edit = Callable[[Floats, float, np.random.Generator], Edited]


def imaged(scene: str, photons: float, z_step: int, seed: int) -> tuple[Simulated, float]:
    """Simulate a volume; return it with the FWHM in µm of its blur beyond the lateral one."""
    acquisition = Acquisition(photons=photons, background=BACKGROUND, z_step=z_step)
    left = (acquisition.axial_fwhm_um**2 - acquisition.lateral_fwhm_um**2) ** 0.5
    found = simulate(scene, SHAPE, acquisition, seed)
    depth = (len(found.image) - 1) * z_step + 1
    return dataclasses.replace(found, truth=found.truth[:depth]), left


def stored(folder: Path, volumes: Simulated, restored: Floats, client: OpenClient) -> list[Path]:
    """Make stores of a measured volume and of what stands for a restored one."""
    stores = []
    for name, voxels, size in (
        ("measured", volumes.image, volumes.image_voxel_size),
        ("restored", restored, volumes.truth_voxel_size),
    ):
        source, store = folder / f"{name}.tif", folder / f"{name}.zarr"
        write_tiff(source, voxels, size)
        convert(source, store, ConvertSettings(), client, if_exists="overwrite")
        stores.append(store)
    return stores


def judged(
    stores: list[Path], settings: TrustSettings, client: OpenClient
) -> tuple[ChannelTrust, Floats]:
    """Judge the second store; return what it comes to, and the scores."""
    summary = trust(*stores, "identity", settings, client, if_exists="overwrite")
    found = Volume(Path(summary.map))
    return summary.channels[0], found.read(0, Box.whole(found.shape[1:]))


def quarters(truth: Floats, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield a place in each quarter of the planes, far from the others and from the borders."""
    depth, height, width = truth.shape
    for row, column in itertools.product((0.25, 0.75), repeat=2):
        middle = (rng.integers(24, depth - 24), int(row * height), int(column * width))
        yield np.array(middle) + rng.integers(-6, 7, 3)


def painted(truth: Floats, peak: float, rng: np.random.Generator) -> Edited:
    """Paint lines of 12 voxels, as wide as the lateral PSF, into the truth."""
    found = list(quarters(truth, rng))
    lines = np.zeros_like(truth)
    for middle in found:
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        for along in np.linspace(-6, 6, 49):
            lines[tuple(np.rint(middle + along * direction).astype(int))] = 1.0
    lines = ndimage.gaussian_filter(lines, _SIGMA)
    return np.asarray(truth + peak * lines / lines.max(), np.float32), found


def erased(truth: Floats, peak: float, rng: np.random.Generator) -> Edited:
    """Take what is there off balls, at places that are about as bright as asked for."""
    alike = np.abs(truth - BACKGROUND - peak) < 0.3 * peak
    alike[:24] = alike[-24:] = False
    edited, found = truth.copy(), []
    for place in quarters(truth, rng):
        near = np.argwhere(alike[:, place[1] - 18 : place[1] + 18, place[2] - 18 : place[2] + 18])
        if not len(near):
            continue
        middle = near[rng.integers(len(near))] + np.array([0, place[1] - 18, place[2] - 18])
        distance = np.linalg.norm(np.indices(truth.shape) - middle[:, None, None, None], axis=0)
        left = 1 / (1 + np.exp((_RADIUS - distance) / 0.8))
        edited = np.asarray(BACKGROUND + (edited - BACKGROUND) * left, np.float32)
        found.append(middle)
    return edited, found


def conditions() -> Iterator[tuple[str, float, int]]:
    """Yield scenes, photons and distances of planes."""
    return itertools.product(SCENES, PHOTONS, STEPS)


def clean(folder: Path, client: OpenClient) -> None:
    """Print what is flagged of truths: cells, and of them those with signal."""
    print("scene      photons z step cell tolerance |  cells flagged  signal flagged spread worst")
    for scene, photons, z_step in conditions():
        volumes, left = imaged(scene, photons, z_step, 0)
        stores = stored(folder, volumes, volumes.truth.astype(np.float32), client)
        for cell, tolerance in ((4, 0.0), (8, 0.0), (8, 0.05)):
            settings = TrustSettings(axial_fwhm=left, cell=cell, tolerance=tolerance, device="cpu")
            one, scores = judged(stores, settings, client)
            print(
                f"{scene:10} {photons:7g} {z_step:6} {cell:4} {tolerance:9} | {one.cells:6} "
                f"{one.flagged * one.cells:7.0f} {one.signal:7} "
                f"{one.flagged_signal * one.signal:7.0f} {one.spread:6.2f} "
                f"{float(np.abs(scores).max()):5.1f}",
                flush=True,
            )


def edits(folder: Path, client: OpenClient) -> None:
    """Print how many structures light up that were painted in, or erased."""
    print("edit    photons z step   peak | found of  median score  flagged elsewhere")
    kinds: tuple[tuple[str, Edit], ...] = (("painted", painted), ("erased", erased))
    for (name, edit), photons, z_step in itertools.product(kinds, PHOTONS, STEPS):
        for share in (0.1, 0.3, 1.0):
            peaks: list[float] = []
            elsewhere = 0
            for seed in SEEDS:
                rng = np.random.default_rng(seed)
                volumes, left = imaged("neurites", photons, z_step, seed)
                truth, middles = edit(volumes.truth.astype(np.float32), share * photons, rng)
                settings = TrustSettings(axial_fwhm=left, device="cpu")
                _, scores = judged(stored(folder, volumes, truth, client), settings, client)
                # Above 0 where light was painted in, below where it was erased.
                signed = scores if name == "painted" else -scores
                near = [_near(scores.shape, middle) for middle in middles]
                peaks += [float(signed[where].max()) for where in near]
                far = ~np.any(near, axis=0) if near else np.ones(scores.shape, bool)
                elsewhere += int((np.abs(scores[far]) > settings.threshold).sum())
            found = sum(peak > settings.threshold for peak in peaks)
            middle_score = np.median(peaks) if peaks else np.nan
            print(
                f"{name:7} {photons:7g} {z_step:6} {share * photons:6g} | {found:5} of "
                f"{len(peaks)} {middle_score:12.1f} {elsewhere:18}",
                flush=True,
            )


def _near(shape: tuple[int, ...], middle: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return the cells that an edit reaches: a line or ball, and its blur along z."""
    reach = np.array([18, 12, 12])
    starts = np.maximum((middle - reach) // _CELL, 0)
    stops = (middle + reach) // _CELL + 1
    found = np.zeros(shape, bool)
    found[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))] = True
    return found


def models(folder: Path, client: OpenClient) -> None:
    """Print what is flagged of deconvolved volumes, by their iterations and the tolerance."""
    print("scene      photons z step iterations tolerance | flagged  signal  too much missing")
    for scene, photons, z_step in itertools.product(("neurites", "cells"), PHOTONS, STEPS):
        volumes, _left = imaged(scene, photons, z_step, 0)
        write_tiff(folder / "m.tif", volumes.image, volumes.image_voxel_size)
        store, out = folder / "m.zarr", folder / "m.restored.zarr"
        convert(folder / "m.tif", store, ConvertSettings(), client, if_exists="overwrite")
        for iterations in (3, 10):
            model = folder / "model"
            widths = RichardsonLucySettings(axial_fwhm=3.6, lateral_fwhm=1.2, iterations=iterations)
            train([store], model, widths, if_exists="overwrite")
            settings = RestoreSettings(device="cpu")
            restore(store, str(model), out, settings, client, if_exists="overwrite")
            for tolerance in (0.0, 0.05, 0.1):
                asked = TrustSettings(tolerance=tolerance, device="cpu")
                found = trust(store, out, str(model), asked, client, if_exists="overwrite")
                (one,) = found.channels
                print(
                    f"{scene:10} {photons:7g} {z_step:6} {iterations:10} {tolerance:9} | "
                    f"{one.flagged:7.2%} {one.flagged_signal:7.2%} {one.invented:7.2%} "
                    f"{one.missing:7.2%}",
                    flush=True,
                )


def main() -> None:
    """Run what was asked for in a folder that is removed afterwards."""
    tables = {"clean": clean, "edits": edits, "models": models}
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    try:
        with open_client(workers=1) as client:
            tables[sys.argv[1]](folder, lambda: nullcontext(client))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
