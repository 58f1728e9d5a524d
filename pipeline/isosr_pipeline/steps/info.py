"""Info: what a store is, without reading a voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isosr_pipeline.engine.survey import survey
from isosr_pipeline.errors import InputError
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.store.volume import Volume


def describe(store: Path) -> dict[str, Any]:
    """Describe a store in terms that JSON holds.

    Parameters
    ----------
    store : Path

    Returns
    -------
    dict
        Shapes in voxels and voxel sizes in µm, order z, y, x; no isotropic shape where the voxels
        allow none.

    Raises
    ------
    InputError
        When it is no OME-Zarr volume.
    """
    volume = Volume(store)
    own = volume.attributes
    levels = [
        {
            "shape": list(array.shape[1:]),
            "chunk": list(array.chunks[1:]),
            "shard": list(array.shards[1:]) if array.shards else None,
        }
        for array in volume.arrays
    ]
    begun = None if own is None or own.complete else survey(store)
    return {
        "path": str(store),
        "axes": "czyx",
        "shape": list(volume.shape),
        "dtype": volume.dtype.name,
        "voxel_size_um": list(volume.voxel_size),
        "origin_um": list(volume.origin),
        "isotropic_shape": _isotropic_shape(volume),
        "channels": volume.channels,
        "levels": levels,
        "complete": own.complete if own else None,
        "regions_done": begun.done if begun else None,
        "regions": begun.total if begun else None,
        "windows": [[w.model_dump() for w in c] for c in own.windows] if own else [],
        "history": [step.model_dump() for step in own.history] if own else [],
    }


def _isotropic_shape(volume: Volume) -> list[int] | None:
    try:
        return list(IsotropicView(volume).shape)
    except InputError:
        return None
