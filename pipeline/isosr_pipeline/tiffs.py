"""TIFF files that steps write: checked before the work, with their voxel size, as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from isosr_pipeline.errors import InputError, MissingInputError, OutputExistsError
from isosr_pipeline.paths import check_creatable, creating, replacing
from isosr_pipeline.sources.slices import SUFFIXES


def check_tiff(path: Path, overwrite: bool) -> None:
    """Refuse a path that no TIFF file can be written to.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether a file that is there will be replaced.

    Raises
    ------
    InputError
        When the suffix is not that of a TIFF file, or the folder is missing or not writable.
    OutputExistsError
        When something is there and may not be replaced.
    """
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


def write_tiff(path: Path, volume: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    """Write a volume with its voxel size, as a whole.

    Parameters
    ----------
    path : Path
        OME-TIFF where the name ends with ``.ome.tif`` or ``.ome.tiff``, else ImageJ's TIFF.
    volume : NDArray, (z, y, x)
        Of a dtype that ImageJ knows: uint8, uint16 or float32.
    voxel_size : tuple of 3 floats
        In µm, order z, y, x.

    Raises
    ------
    OutputPathError
        When the system refuses to write it.
    """
    z, y, x = voxel_size
    ome = path.stem.lower().endswith(".ome")
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if ome:
        for axis, size in zip("ZYX", voxel_size, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    else:
        metadata |= {"spacing": z, "unit": "um"}
    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            volume,
            imagej=not ome,
            ome=ome,
            resolution=(1 / x, 1 / y),
            metadata=metadata,
        )
