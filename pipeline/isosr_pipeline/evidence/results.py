"""What `evaluate` finds, with units: a report can be drawn from it, or its JSON, alone."""

from __future__ import annotations

from datetime import datetime

from isosr_pipeline.evidence.distribution import Distribution, Result
from isosr_pipeline.evidence.spots import SpotComparison
from isosr_pipeline.evidence.trusted import TrustFigures
from isosr_pipeline.seams import SeamScore
from isosr_pipeline.settings import EvaluateSettings

Place = tuple[int, int, int]
"""Voxels of the restored volume, order z, y, x."""


class Comparison(Result):
    """Figures of a volume against a reference, after a least-squares intensity fit.

    Attributes
    ----------
    psnr_db : float
        10·log10(max(reference)² / mean squared error), in dB, over all voxels.
    ssim : float
        Mean structural similarity in 3D, Gaussian window of sigma 1.5 voxels.
    nrmse : float
        Root of the mean squared error over the root of the reference's mean square.
    gain, offset : float
        Of the fit ``gain * intensity + offset``.
    """

    psnr_db: float
    ssim: float
    nrmse: float
    gain: float
    offset: float


class Spectrum(Result):
    """Mean power spectrum of sections in one plane, under a Hann window.

    Attributes
    ----------
    frequency_per_um : tuple of float
        Of shells up to half a cycle per voxel, in cycles per µm.
    power : tuple of float
        Radial mean in each shell, in squared intensity units: white noise of variance s² has s².
    power_along : dict of str to tuple of float
        For the section's two axes, of ``"z"``, ``"y"``, ``"x"``: mean within 20 degrees of it.
    noise_power : float
        Where a sampled image has no signal: beyond half a cycle per voxel of the 3D spectrum.
    """

    frequency_per_um: tuple[float, ...]
    power: tuple[float, ...]
    power_along: dict[str, tuple[float, ...]]
    noise_power: float


class ShellCorrelation(Result):
    """Fourier shell correlation along one axis, of even with odd rows across it.

    Attributes
    ----------
    frequency_per_um : tuple of float
        In cycles per µm.
    correlation : tuple of float
        Within 20 degrees of the axis; from -1 to 1.
    resolution_um : float or None
        1 / frequency where it first falls below 1/7, in µm; None where it does from the beginning,
        or where noise correlates.
    at_limit : bool
        It never falls below: detail is resolved to two voxels or less, and `resolution_um`, two
        voxels, is the most that it can be.
    noise_correlation : float or None
        Correlation in the corners of the spectrum, where there is no signal: near 0 for noise that
        is independent from voxel to voxel. None: it was not measured, by earlier versions.
    noise_correlates : bool
        It is above 1/7, so that the curve does not tell detail from smooth noise.
    """

    frequency_per_um: tuple[float, ...]
    correlation: tuple[float, ...]
    resolution_um: float | None
    at_limit: bool
    noise_correlation: float | None = None
    noise_correlates: bool = False


class Sharpness(Result):
    """How steep intensities are along each axis, smoothed by a Gaussian of one voxel.

    Attributes
    ----------
    z_per_um, y_per_um, x_per_um : float
        Root mean square slope over the standard deviation, per µm.
    axial_lateral_ratio : float
        That along z over the mean along y and x.
    """

    z_per_um: float
    y_per_um: float
    x_per_um: float
    axial_lateral_ratio: float

    @property
    def lateral_per_um(self) -> float:
        """The mean of those along y and x."""
        return (self.y_per_um + self.x_per_um) / 2


class Extremes(Result):
    """Voxels at the ends of the dtype, among those of the sampled cubes.

    Attributes
    ----------
    voxels : int
        That were looked at; of the input as measured, before resampling along z.
    zero_share : float
        Share of them that is 0.
    saturated_share : float or None
        Share that has the highest integer of the dtype; None: of floats.
    low, high : float
        Extremes of intensity among them.
    """

    voxels: int
    zero_share: float
    saturated_share: float | None
    low: float
    high: float


class Figures(Result):
    """Figures of one volume; those that are told from sampled cubes are None without any.

    Attributes
    ----------
    axial_lateral_ratio : float or None
        Axial over lateral spectral amplitude: 1 if isotropic, below if blurred along z. None
        where no part of the volume carries signal, or it is thinner than 16 voxels.
    sharpness : Sharpness or None
        None where all is flat, or noise.
    correlation : dict of str to ShellCorrelation or None
        Along ``"z"``, ``"y"`` and ``"x"``.
    spectra : dict of str to Spectrum or None
        Of sections in ``"xy"``, ``"xz"`` and ``"yz"``.
    extremes : Extremes or None
    against_reference : Comparison or None
        None without a reference.
    """

    axial_lateral_ratio: float | None
    sharpness: Sharpness | None
    correlation: dict[str, ShellCorrelation] | None
    spectra: dict[str, Spectrum] | None
    extremes: Extremes | None
    against_reference: Comparison | None


class Sampling(Result):
    """Cubes from which figures without a reference are told; the same in both volumes.

    Attributes
    ----------
    edge : int
        In voxels.
    starts : tuple of Place
    how : str
        ``"all"``: they cover the volume. ``"signal"``: drawn where the input shows something.
        ``"even"``: spread evenly, since it could not be told where that is.
    """

    edge: int
    starts: tuple[Place, ...]
    how: str


class RoiFigures(Result):
    """Figures of a 2D region of interest, after the intensity fit of the whole volume.

    Attributes
    ----------
    plane : str
        ``"xy"``, ``"xz"`` or ``"yz"``.
    start, shape : Place
        First voxel, and lengths.
    psnr_before_db, psnr_after_db, gain_db : float
        10·log10(N·max(r)² / Σ(r - t)²) of reference r and volume t, and what restoration adds.
    ms_ssim_before, ms_ssim_after : float or None
        None: the region is narrower than 11 voxels.
    """

    plane: str
    start: Place
    shape: Place
    psnr_before_db: float
    psnr_after_db: float
    gain_db: float
    ms_ssim_before: float | None
    ms_ssim_after: float | None


class RoiComparison(Result):
    """Figures over regions of interest.

    Attributes
    ----------
    how : str
        ``"given"``; ``"signal"``: drawn where the input shows something; ``"anywhere"``: drawn
        from everywhere, since it could not be told where that is.
    psnr_before_db, psnr_after_db, gain_db, ms_ssim_before, ms_ssim_after : Distribution or None
        Over the regions; None where none of the figures is finite.
    improved_share : float
        Share of the regions whose PSNR has risen.
    regions : tuple of RoiFigures
    """

    how: str
    psnr_before_db: Distribution | None
    psnr_after_db: Distribution | None
    gain_db: Distribution | None
    ms_ssim_before: Distribution | None
    ms_ssim_after: Distribution | None
    improved_share: float
    regions: tuple[RoiFigures, ...]


class Drift(Result):
    """Mean intensities of slabs along z before and after, told from coarse levels.

    Attributes
    ----------
    borders_um : tuple of float
        Where slabs begin, and where the last one ends, from the restored volume's first plane on.
    before, after : tuple of float
        Means, in intensity units.
    background : float or None
        Intensity where the input shows nothing, such as a camera's offset. None: it was taken to be
        0, by earlier versions.
    relative_change : tuple of float
        (after - before) over the mean of the whole input above the background.
    largest_relative_change : float
        The one farthest from 0.
    """

    borders_um: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    background: float | None = None
    relative_change: tuple[float, ...]
    largest_relative_change: float


class RestoredCounts(Result):
    """What `restore` counted when it wrote the volume, over all voxels of all channels.

    Attributes
    ----------
    voxels : int
    clipped : int
        Lay outside the range of the dtype, and were cut to it.
    saturated : int
        Lay outside the intensity window of the model.
    passed : int
        Were only resampled, since nothing there exceeds the floor.
    """

    voxels: int
    clipped: int
    saturated: int
    passed: int


class Measuring(Result):
    """When and with what the figures were measured.

    Attributes
    ----------
    ended : datetime
        With its zone.
    versions : dict of str to str
        Of the program and of the libraries that decide the figures.
    command : tuple of str
        The program's arguments, for the record.
    """

    ended: datetime
    versions: dict[str, str]
    command: tuple[str, ...]


class Evaluation(Result):
    """What `evaluate` found.

    Attributes
    ----------
    store, restored : str
        Paths.
    settings : EvaluateSettings
        What was asked for: reference, channel, regions, seed.
    shape : Place
        Of the restored volume, in voxels.
    voxel_size_um : tuple of 3 floats
        Of its voxels, order z, y, x.
    sampling : Sampling or None
        None: the volume is thinner than 16 voxels.
    before, after : Figures
        Of the measured volume on the isotropic grid, and of the restored one.
    rois : RoiComparison or None
        None without a reference.
    drift : Drift or None
        None where a volume has no level coarse enough, or shows nothing.
    counts : RestoredCounts or None
        None where the volume's history does not tell.
    seams : SeamScore or None
        As `restore` measured it, in its first channel; None for others.
    spots : SpotComparison or None
        None unless asked for.
    reference_channel : int or None
        The channel of the reference; None without one, or where an earlier version measured.
    trust : TrustFigures or None
        What the trust map of this restoration comes to; None where none lies beside the volume, or
        none that is finished.
    measuring : Measuring or None
        None where an earlier version measured.
    """

    store: str
    restored: str
    settings: EvaluateSettings
    shape: Place
    voxel_size_um: tuple[float, float, float]
    sampling: Sampling | None
    before: Figures
    after: Figures
    rois: RoiComparison | None
    drift: Drift | None
    counts: RestoredCounts | None
    seams: SeamScore | None
    spots: SpotComparison | None
    reference_channel: int | None = None
    trust: TrustFigures | None = None
    measuring: Measuring | None = None
