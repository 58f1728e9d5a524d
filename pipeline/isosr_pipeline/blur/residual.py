"""Residual blur: what ``self-blur`` must know of its volumes before it trains, told or given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from isosr_models.configs import Degradation
from isosr_models.errors import ModelFormatError
from isosr_models.model_folder import read_description, read_run
from isosr_pipeline.blur.axial import CONFIDENT
from isosr_pipeline.blur.noise import NoiseModel, estimate_noise
from isosr_pipeline.blur.of_stores import (
    COUNT,
    EDGE,
    VolumeBlur,
    check_plot,
    describe_blur,
    write_plot,
)
from isosr_pipeline.blur.subvolumes import draw_subvolumes
from isosr_pipeline.errors import InputError
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.resuming import TOLD
from isosr_pipeline.widths import FWHM_PER_SIGMA

LEAST_SIGMA = 0.3
"""Of a blur that can be undone, in lateral voxels, where planes lie as close as voxels."""

METHOD = "self-blur"
_CLOSE_PLANES = 1.2

Windows = Sequence[Sequence[tuple[float, float]]]
"""For each store and channel, the intensities that become 0 and 1."""


class ResidualBlur(BaseModel):
    """What is known of the blur along z, beyond that in the plane, and of the noise.

    Attributes
    ----------
    source : {"given", "told"}
        Told: from the volumes themselves.
    voxel_size_um : float
        Of the isotropic grid.
    degradation : Degradation
        What training does to lateral planes.
    volumes : tuple of VolumeBlur
        Of each store and channel; empty if the blur was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["given", "told"]
    voxel_size_um: float
    degradation: Degradation
    volumes: tuple[VolumeBlur, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what is known, and what makes it doubtful."""
        known = self.degradation
        square = (known.square_x + known.square_y) / 2
        low, high = (math.sqrt(max(square + s * CONFIDENT * known.error, 0.0)) for s in (-1, 1))
        um = FWHM_PER_SIGMA * self.voxel_size_um
        told = "as given" if self.source == "given" else f"95 %: {low * um:.3g} to {high * um:.3g}"
        yield (
            f"axial blur beyond the lateral one: FWHM {math.sqrt(square) * um:.3g} µm ({told}), "
            f"sigma {math.sqrt(square):.2f} voxels"
        )
        for blur in self.volumes:
            for warning in blur.warnings:
                yield f"warning: {blur.store}, channel {blur.channel}: {warning}"


def find_residual_blur(
    stores: Sequence[Path], windows: Windows, seed: int, axial_fwhm: float | None
) -> ResidualBlur:
    """Tell the blur and the noise of volumes of one microscope.

    Parameters
    ----------
    stores : sequence of Path
    windows : sequence of sequence of tuple of 2 floats
    seed : int
        Of the sub-volumes that are looked at.
    axial_fwhm : float or None
        FWHM in µm of the blur that is left along z when the lateral one is taken off; None: it is
        told from the volumes.

    Raises
    ------
    InputError
        When nothing can be told, or there is no blur.
    """
    noise = _mean_noise(stores, windows, seed)
    size = IsotropicView(Volume(stores[0])).voxel_size[2]
    if axial_fwhm is not None:
        square = (axial_fwhm / size / FWHM_PER_SIGMA) ** 2
        given = _degradation((square, square, 0.0), noise)
        return ResidualBlur(source="given", voxel_size_um=size, degradation=given)
    volumes = tuple(
        describe_blur(store, channel=channel, seed=seed)
        for store, own in zip(stores, windows, strict=True)
        for channel in range(len(own))
    )
    told = _degradation(_combined(volumes), noise)
    _check_blurred(told, volumes, size)
    return ResidualBlur(source="told", voxel_size_um=size, degradation=told, volumes=volumes)


def recorded_blur(run: Mapping[str, Any], path: Path) -> ResidualBlur:
    """Return what the run of a training was begun with.

    Parameters
    ----------
    run : mapping
    path : Path
        Of the model, for the message.

    Raises
    ------
    ModelFormatError
        When the run does not say.
    """
    try:
        return ResidualBlur.model_validate(run.get(TOLD))
    except ValidationError as error:
        raise ModelFormatError(
            f"{path}: its run has no {TOLD!r} that this program knows; train again"
        ) from error


def is_of_self_blur(model: Path) -> bool:
    """Return whether a model was trained with a blur that was known beforehand."""
    return read_description(model).method == METHOD


def describe_residual_blur(
    model: Path, plot: Path | None = None, *, overwrite: bool = False
) -> ResidualBlur:
    """Return the blur that a model of ``self-blur`` was trained to undo.

    Parameters
    ----------
    model : Path
    plot : Path, optional
        SVG file for a picture of what was measured of the first store and channel.
    overwrite : bool
        Whether to replace a file at `plot`.

    Raises
    ------
    InputError
        When nothing was measured that could be drawn, or the picture can't be written.
    OutputExistsError
        When `plot` is there and may not be replaced.
    ModelFormatError
        When the folder is no model, or of another method.
    """
    blur = recorded_blur(read_run(model), model)
    if plot is not None:
        if not blur.volumes:
            raise InputError(
                f"{model} was trained with an axial blur that was given, and nothing was measured "
                "that could be drawn; leave --plot out"
            )
        check_plot(plot, overwrite)
        write_plot(plot, blur.volumes[0])
    return blur


def _degradation(squares: tuple[float, float, float], noise: NoiseModel) -> Degradation:
    x, y, error = squares
    return Degradation(
        square_x=max(x, 0.0),
        square_y=max(y, 0.0),
        error=error,
        noise_gain=noise.gain,
        noise_floor=noise.floor,
    )


def _combined(volumes: Sequence[VolumeBlur]) -> tuple[float, float, float]:
    """Return squares against x and y, and the error of their mean: the more certain count more."""
    told = [blur.estimate for blur in volumes if blur.estimate is not None]
    if not told:
        warnings = "; ".join(dict.fromkeys(w for blur in volumes for w in blur.warnings))
        raise InputError(
            f"the axial blur of {', '.join(dict.fromkeys(b.store for b in volumes))} can't be told "
            f"({warnings}); give its FWHM with --axial-fwhm"
        )
    errors = np.array([one.width.square_error_voxels for one in told])
    weights = errors**-2 / (errors**-2).sum()

    def mean(name: Literal["against_x", "against_y", "width"]) -> float:
        return float(weights @ [getattr(one, name).square_voxels for one in told])

    # Where volumes differ by more than chance, the blur of one that is drawn is that uncertain.
    squares = np.array([one.width.square_voxels for one in told])
    scatter = math.sqrt(float(weights @ (squares - mean("width")) ** 2))
    return mean("against_x"), mean("against_y"), max(float((errors**-2).sum() ** -0.5), scatter)


def _check_blurred(told: Degradation, volumes: Sequence[VolumeBlur], size: float) -> None:
    """Refuse volumes that may well be as sharp along z as in the plane."""
    square = (told.square_x + told.square_y) / 2
    least = math.sqrt(max(square - CONFIDENT * told.error, 0.0))
    if least >= LEAST_SIGMA or volumes[0].plane_distance_um > _CLOSE_PLANES * size:
        return
    raise InputError(
        f"{volumes[0].store} may be as sharp along z as in its planes (sigma of the blur beyond "
        f"the lateral one {math.sqrt(square):.2f}, but perhaps {least:.2f} voxels, and what can be "
        f"undone begins at {LEAST_SIGMA:g}): there is nothing to restore; if you know better, give "
        "--axial-fwhm"
    )


def _mean_noise(stores: Sequence[Path], windows: Windows, seed: int) -> NoiseModel:
    """Return the mean of the noise of all stores and channels, their windows being 0 and 1."""
    found = []
    for store, own in zip(stores, windows, strict=True):
        volume = Volume(store)
        reader = LevelReader(volume)
        for channel, window in enumerate(own):
            places = draw_subvolumes(volume, channel, EDGE, COUNT, seed)
            parts = (reader.read(channel, box) for box in places.boxes)
            found.append(estimate_noise(parts).windowed(window))
    gains, floors = ([getattr(one, name) for one in found] for name in ("gain", "floor"))
    return NoiseModel(float(np.mean(gains)), float(np.mean(floors)))
