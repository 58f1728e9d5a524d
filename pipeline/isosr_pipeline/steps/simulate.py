"""Simulate: an acquisition with a known truth, as TIFF files that convert reads."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError, MissingInputError, OutputExistsError
from isosr_pipeline.simulation import Acquisition, simulate
from isosr_pipeline.sources.slices import SUFFIXES


def write_simulation(
    out: Path,
    truth: Path | None,
    *,
    scene: str,
    shape: tuple[int, int, int],
    acquisition: Acquisition,
    seed: int,
    overwrite: bool = False,
) -> None:
    """Simulate a volume and write it as ImageJ TIFF with its voxel size.

    Parameters
    ----------
    out : Path
        For the blurred, noisy volume.
    truth : Path or None
        For the same object under the lateral PSF on all axes, without noise.
    scene : {"neurites", "beads", "cells"}
    shape : tuple of 3 ints
        Of the truth, in voxels, order z, y, x.
    acquisition : Acquisition
    seed : int
    overwrite : bool
        Whether to replace files that are there.

    Raises
    ------
    InputError
        When a path or a parameter is not usable.
    OutputExistsError
        When a file is there and may not be replaced.
    """
    paths = [path for path in (out, truth) if path is not None]
    for path in paths:
        _check(path, overwrite)
    if truth is not None and out.resolve() == truth.resolve():
        raise InputError(f"{out} is given for the volume and for its truth; give two paths")
    simulated = simulate(scene, shape, acquisition, seed)
    _write(out, simulated.image, simulated.image_voxel_size)
    if truth is not None:
        _write(truth, simulated.truth, simulated.truth_voxel_size)


def _check(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path} has the suffix {path.suffix!r}; give one of {', '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise MissingInputError(f"{path.parent} is no folder; make it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite")


def _write(path: Path, volume: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    z, y, x = voxel_size
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        tifffile.imwrite(
            partial,
            volume,
            imagej=True,
            resolution=(1 / x, 1 / y),
            metadata={"axes": "ZYX", "spacing": z, "unit": "um"},
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
