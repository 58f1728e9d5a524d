"""Objects to be imaged: fluorophores in a periodic field, the same in every direction.

A field is somewhat larger than the volume that is cut out of it, so that objects cross the borders
and nothing is special there. All coordinates are (z, y, x), in voxels of the isotropic object grid
unless a name ends in ``_um``.
"""

from __future__ import annotations

from collections.abc import Callable

from isosr_pipeline.errors import InputError
from isosr_pipeline.simulation.scenes.beads import paint_beads
from isosr_pipeline.simulation.scenes.cells import paint_cells
from isosr_pipeline.simulation.scenes.fields import Field, Rng, Shape
from isosr_pipeline.simulation.scenes.neurites import paint_neurites

_PAINTERS: dict[str, Callable[[Rng, Shape, float], Field]] = {
    "neurites": paint_neurites,
    "beads": paint_beads,
    "cells": paint_cells,
}

SCENES = tuple(_PAINTERS)
"""Names of the scenes."""


def check_scene(scene: str) -> None:
    """Refuse a scene that there isn't.

    Raises
    ------
    InputError
        Naming those that there are.
    """
    if scene not in _PAINTERS:
        raise InputError(f"scene: {scene!r} is unknown; choose one of {', '.join(SCENES)}")


def paint(scene: str, rng: Rng, shape: Shape, voxel: float) -> Field:
    """Draw the fluorophores of a scene.

    Parameters
    ----------
    scene : {"neurites", "beads", "cells"}
    rng : numpy.random.Generator
    shape : tuple of 3 ints
        Of the field; see `isosr_pipeline.simulation.scenes.fields.field_shape`.
    voxel : float
        Edge of a voxel, µm.

    Returns
    -------
    (z, y, x) float32
        Fluorophores in each voxel, in arbitrary units, of a field that continues periodically.

    Raises
    ------
    InputError
        If the scene is unknown.
    """
    check_scene(scene)
    return _PAINTERS[scene](rng, shape, voxel)
