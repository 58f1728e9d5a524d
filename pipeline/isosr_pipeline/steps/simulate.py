"""Simulate: an acquisition with a known truth, as TIFF files that convert reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError, MissingInputError, OutputExistsError
from isosr_pipeline.paths import check_creatable, creating, partial_path
from isosr_pipeline.simulation import Acquisition, field_shape, simulate
from isosr_pipeline.sources.slices import SUFFIXES

# Measured for each voxel of the field that is drawn, at voxel sizes of 0.5 µm; never much less.
_BYTES_PER_VOXEL = {"neurites": 64, "beads": 32, "cells": 32}


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
    _check_memory(scene, shape, acquisition)
    simulated = simulate(scene, shape, acquisition, seed)
    _write(out, simulated.image, simulated.image_voxel_size)
    if truth is not None:
        _write(truth, simulated.truth, simulated.truth_voxel_size)


def _check_memory(scene: str, shape: tuple[int, int, int], acquisition: Acquisition) -> None:
    # Slow to import, and its limit knows of containers and of ulimit.
    from distributed.system import MEMORY_LIMIT

    field = field_shape(shape, acquisition.voxel_size_um)
    needed = math.prod(field) * _BYTES_PER_VOXEL.get(scene, min(_BYTES_PER_VOXEL.values()))
    if needed > MEMORY_LIMIT:
        raise InputError(
            f"shape: {' × '.join(map(str, shape))} voxels of {scene} need {needed / 1e9:.1f} GB of "
            f"memory, and there are {MEMORY_LIMIT / 1e9:.1f} GB; give a smaller --shape"
        )


def _check(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path} has the suffix {path.suffix!r}; give one of {', '.join(SUFFIXES)}"
        )
    with creating(path):
        path.exists()
    if not path.parent.is_dir():
        raise MissingInputError(f"{path.parent} is no folder; make it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite")
    check_creatable(path, replace=overwrite)


def _write(path: Path, volume: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    z, y, x = voxel_size
    partial = partial_path(path)
    with creating(path):
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
