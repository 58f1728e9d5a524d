"""Simulate: an acquisition with a known truth, as TIFF files that convert reads."""

from __future__ import annotations

import math
from pathlib import Path

from isosr_pipeline.errors import InputError
from isosr_pipeline.simulation.acquisition import Acquisition
from isosr_pipeline.simulation.scenes.fields import field_shape
from isosr_pipeline.simulation.volume import simulate
from isosr_pipeline.tiffs import check_tiff, write_tiff

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
        check_tiff(path, overwrite)
    if truth is not None and out.resolve() == truth.resolve():
        raise InputError(f"{out} is given for the volume and for its truth; give two paths")
    _check_memory(scene, shape, acquisition)
    simulated = simulate(scene, shape, acquisition, seed)
    write_tiff(out, simulated.image, simulated.image_voxel_size)
    if truth is not None:
        write_tiff(truth, simulated.truth, simulated.truth_voxel_size)


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
