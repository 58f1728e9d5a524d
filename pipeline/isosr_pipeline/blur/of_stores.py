"""Axial blur: how much more a volume is blurred along z than in its planes, told blindly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from isosr_pipeline.blur.axial import AxialBlur, Square, estimate
from isosr_pipeline.blur.cautions import NOTHING, warnings
from isosr_pipeline.blur.depth import Stratum
from isosr_pipeline.blur.form import Point
from isosr_pipeline.blur.picture import Drawn, draw_blur
from isosr_pipeline.blur.power_spectra import MIN_EDGE, SpectralGrid
from isosr_pipeline.blur.subvolumes import Subvolumes, draw_subvolumes
from isosr_pipeline.errors import InputError, OutputExistsError
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.paths import check_creatable, replacing
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.widths import FWHM_PER_SIGMA

EDGE, COUNT = 64, 64
"""Lateral voxels along a sub-volume, and how many are drawn."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WidthEstimate(_Record):
    """A width of the blur along z, beyond a lateral one, and its interval of 95 %.

    Attributes
    ----------
    sigma_voxels, fwhm_voxels, sigma_um, fwhm_um : float
        Standard deviation and full width at half maximum, in lateral voxels and in µm.
    sigma_voxels_interval, fwhm_um_interval : tuple of 2 floats
    square_voxels, square_error_voxels : float
        What is fitted, the square of sigma, which chance may take below 0, and its standard error.
    """

    sigma_voxels: float
    sigma_voxels_interval: tuple[float, float]
    fwhm_voxels: float
    sigma_um: float
    fwhm_um: float
    fwhm_um_interval: tuple[float, float]
    square_voxels: float
    square_error_voxels: float

    @classmethod
    def of(cls, square: Square, voxel_size: float) -> WidthEstimate:
        """Give a square in all units; the size of a lateral voxel is in µm."""
        low, high = square.interval
        um = FWHM_PER_SIGMA * voxel_size
        return cls(
            sigma_voxels=square.sigma,
            sigma_voxels_interval=(low, high),
            fwhm_voxels=square.sigma * FWHM_PER_SIGMA,
            sigma_um=square.sigma * voxel_size,
            fwhm_um=square.sigma * um,
            fwhm_um_interval=(low * um, high * um),
            square_voxels=square.value,
            square_error_voxels=square.error,
        )


class DepthEstimate(_Record):
    """The blur of sub-volumes that lie at about one depth, counted from the first plane."""

    first_um: float
    last_um: float
    subvolumes: int
    width: WidthEstimate

    @classmethod
    def of(cls, stratum: Stratum, voxel_size: float) -> DepthEstimate:
        """Give a stratum in all units; the size of a lateral voxel is in µm."""
        return cls(
            first_um=stratum.first * voxel_size,
            last_um=stratum.last * voxel_size,
            subvolumes=stratum.count,
            width=WidthEstimate.of(Square(stratum.square, stratum.error), voxel_size),
        )


class TransferFunction(_Record):
    """The transfer function along z, relative to that in the plane, with no form given.

    Attributes
    ----------
    frequencies_per_um, amplitudes : tuple of float
    gaussian : bool
        Whether a Gaussian does as well.
    half_amplitude_fwhm_um : float or None
        FWHM of the Gaussian that falls to half its amplitude at the same frequency; None: it is
        not seen to.
    """

    frequencies_per_um: tuple[float, ...]
    amplitudes: tuple[float, ...]
    gaussian: bool
    half_amplitude_fwhm_um: float | None


class Measured(_Record):
    """What was measured at a frequency along z: the logarithm of the power over that in the plane.

    Attributes
    ----------
    frequency_per_um, logarithm, error : float
        The last is a standard error.
    """

    frequency_per_um: float
    logarithm: float
    error: float


class Estimate(_Record):
    """The blur along z, beyond that in the plane.

    Attributes
    ----------
    width : WidthEstimate
        Against the mean of y and x.
    against_x, against_y : WidthEstimate
    allowing_for_directions : WidthEstimate
        Against the mean, if structures may prefer directions.
    spread_sigma_voxels : tuple of 2 floats
        Between which two thirds of the sub-volumes lie, each by itself.
    lateral_power_ratio : float
        Of the directions in the plane with the most and the least power; 1: all are alike.
    lateral_direction_degrees : float
        Along which structures run, or the lateral blur is the widest: from x towards y.
    depth : {"changes", "same", "unknown"}
    depths : tuple of DepthEstimate
    transfer : TransferFunction or None
        None: too little is known to tell.
    measured : tuple of Measured
    """

    width: WidthEstimate
    against_x: WidthEstimate
    against_y: WidthEstimate
    allowing_for_directions: WidthEstimate
    spread_sigma_voxels: tuple[float, float]
    lateral_power_ratio: float
    lateral_direction_degrees: float
    depth: Literal["changes", "same", "unknown"]
    depth_probability: float
    depths: tuple[DepthEstimate, ...]
    transfer: TransferFunction | None
    measured: tuple[Measured, ...] = ()

    @classmethod
    def of(cls, blur: AxialBlur, size: float) -> Estimate:
        """Give an estimate in all units; the size of a lateral voxel is in µm."""
        form = blur.form
        transfer = form and TransferFunction(
            frequencies_per_um=tuple(f / size for f in form.frequencies),
            amplitudes=form.amplitudes,
            gaussian=form.gaussian,
            half_amplitude_fwhm_um=form.sigma and form.sigma * size * FWHM_PER_SIGMA,
        )
        return cls(
            width=WidthEstimate.of(blur.lateral, size),
            against_x=WidthEstimate.of(blur.against_x, size),
            against_y=WidthEstimate.of(blur.against_y, size),
            allowing_for_directions=WidthEstimate.of(blur.with_directions, size),
            spread_sigma_voxels=blur.spread,
            lateral_power_ratio=blur.plane.power_ratio,
            lateral_direction_degrees=blur.plane.direction,
            depth=blur.depth.found,
            depth_probability=blur.depth.probability,
            depths=tuple(DepthEstimate.of(s, size) for s in blur.depth.strata),
            transfer=transfer,
            measured=tuple(
                Measured(frequency_per_um=p.frequency / size, logarithm=p.logarithm, error=p.error)
                for p in blur.points
            ),
        )

    def drawn(self, size: float) -> Drawn:
        """Return what a picture shows; the size of a lateral voxel is in µm."""
        known = self.transfer
        curve = zip(known.frequencies_per_um, known.amplitudes, strict=True) if known else ()
        return Drawn(
            lateral=Square(self.width.square_voxels, self.width.square_error_voxels),
            points=tuple(
                Point(m.frequency_per_um * size, m.logarithm, m.error) for m in self.measured
            ),
            curve=tuple((f * size, amplitude) for f, amplitude in curve),
        )


class VolumeBlur(_Record):
    """What was told of the blur of a volume.

    Attributes
    ----------
    store : str
    channel : int
    voxel_size_um : float
        Of a lateral voxel.
    plane_distance_um : float
    subvolume : tuple of 3 ints
        In measured voxels, order z, y, x.
    subvolumes, left_out : int
        Used, and left out for lying far off the others.
    foreground : bool
        Whether sub-volumes were drawn where something is.
    estimate : Estimate or None
        None: nothing can be told.
    warnings : tuple of str
    """

    store: str
    channel: int
    voxel_size_um: float
    plane_distance_um: float
    subvolume: tuple[int, int, int]
    subvolumes: int
    left_out: int
    foreground: bool
    estimate: Estimate | None
    warnings: tuple[str, ...]


def describe_blur(
    store: Path,
    plot: Path | None = None,
    *,
    channel: int = 0,
    edge: int = EDGE,
    count: int = COUNT,
    seed: int = 0,
    overwrite: bool = False,
) -> VolumeBlur:
    """Estimate the blur of a volume from its power spectrum alone.

    Parameters
    ----------
    store : Path
        A complete OME-Zarr volume.
    plot : Path, optional
        SVG file for a picture of what was measured and fitted.
    channel : int
    edge : int
        Of a sub-volume, in lateral voxels.
    count : int
        Sub-volumes at the most.
    seed : int
        Of their places.
    overwrite : bool
        Whether to replace a file at `plot`.

    Raises
    ------
    InputError
        When the store is not complete, has no such channel, no square voxels or too few of them, or
        the picture can't be written.
    OutputExistsError
        When `plot` is there and may not be replaced.
    """
    if plot is not None:
        check_plot(plot, overwrite)
    volume = Volume(store)
    volume.require_complete()
    if not 0 <= channel < volume.shape[0]:
        raise InputError(
            f"--channel is {channel}, and {store} has channels 0 to {volume.shape[0] - 1}"
        )
    if edge < MIN_EDGE:
        raise InputError(f"--edge is {edge}, and a blur can be told from {MIN_EDGE} voxels on")
    places = draw_subvolumes(volume, channel, edge, count, seed)
    try:
        grid = SpectralGrid(places.shape, places.step)
    except InputError as error:
        raise InputError(f"{store}: {error}") from error
    blur = _estimated(volume, channel, places, grid)
    z, _, x = volume.voxel_size
    found = VolumeBlur(
        store=str(store),
        channel=channel,
        voxel_size_um=x,
        plane_distance_um=z,
        subvolume=places.shape,
        subvolumes=blur.used if blur else len(places.starts),
        left_out=blur.left_out if blur else 0,
        foreground=places.foreground,
        estimate=blur and Estimate.of(blur, x),
        warnings=tuple(warnings(blur)) if blur else (NOTHING,),
    )
    if plot is not None:
        write_plot(plot, found)
    return found


def _estimated(
    volume: Volume, channel: int, places: Subvolumes, grid: SpectralGrid
) -> AxialBlur | None:
    reader = LevelReader(volume)
    spectra = []
    for box in places.boxes:
        try:
            spectra.append(grid.spectrum(reader.read(channel, box)))
        except InputError as error:
            raise InputError(f"{volume.path}, {box}: {error}") from error
    return estimate(grid, spectra, places.depths)


def check_plot(path: Path, overwrite: bool) -> None:
    """Refuse a path that no picture can be written to.

    Raises
    ------
    InputError
        When it is no SVG file, or can't be made.
    OutputExistsError
        When it is there and may not be replaced.
    """
    if path.suffix.lower() != ".svg":
        raise InputError(f"{path} has the suffix {path.suffix!r}; a picture is written as .svg")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder; make it first")
    check_creatable(path, replace=overwrite)


def write_plot(path: Path, blur: VolumeBlur) -> None:
    """Draw the blur of a volume as an SVG file; see `draw_blur`."""
    drawn = blur.estimate.drawn(blur.voxel_size_um) if blur.estimate else None
    text = draw_blur(drawn, f"{Path(blur.store).name}, channel {blur.channel}")
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
