"""Fluorescent beads: spheres at random places, by which the width of a PSF is seen."""

from __future__ import annotations

import numpy as np

from isosr_pipeline.simulation.scenes.fields import Field, Rng, Shape, deposit, in_unit_ball, number

BEAD_DIAMETER_UM = 0.5

_FLUOROPHORES_PER_BEAD = 500


def paint_beads(rng: Rng, shape: Shape, voxel: float) -> Field:
    """Draw beads of `BEAD_DIAMETER_UM` in a field; see `isosr_pipeline.simulation.scenes.paint`."""
    # In coarse voxels the spacing is held in voxels, or beads would fill the volume.
    count = number(max(7.0, 12.0 * voxel) ** -3, shape, voxel)
    centres = np.repeat(rng.random((count, 3)) * shape, _FLUOROPHORES_PER_BEAD, axis=0)
    offsets = in_unit_ball(rng, len(centres)) * (0.5 * BEAD_DIAMETER_UM / voxel)
    brightness = np.repeat(rng.lognormal(0.0, 0.25, count), _FLUOROPHORES_PER_BEAD)
    return deposit(centres + offsets, brightness, shape)
