"""What the trust map beside a restored volume comes to, among the other figures."""

from __future__ import annotations

from isosr_pipeline.evidence.distribution import Result
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside, mismatch
from isosr_pipeline.trust.summary import ChannelTrust, WorstPlace, read_summary


class TrustPlace(Result):
    """A place where the restored volume does not explain the measured one.

    Attributes
    ----------
    channel : int
        Of the restored volume.
    score_sd : float
        Above 0: more light than was measured; below: less. In standard deviations.
    voxel : tuple of 3 ints
        The middle of the cell in the restored volume, order z, y, x.
    position_um : tuple of 3 floats
        The same in µm, as viewers show it: of the whole volume, whatever part of it was restored.
    grid_voxel : tuple of 3 ints or None
        The same in voxels of the isotropic grid of the whole volume, in which ``restore --roi``
        counts; None where the map does not say it.
    """

    channel: int
    score_sd: float
    voxel: tuple[int, int, int]
    position_um: tuple[float, float, float]
    grid_voxel: tuple[int, int, int] | None


class TrustChannel(Result):
    """What a channel of the map comes to.

    Attributes
    ----------
    channel : int
        Of the restored volume.
    cells, signal_cells : int
        That are judged, and of these, that show more than background.
    flagged_share, flagged_signal_share : float
        Shares of both that are flagged.
    invented_share, missing_share : float
        Shares of all cells that are flagged with more, or less, light than was measured.
    spread_sd : float
        Of all scores, in standard deviations: about 1 where noise is all that is left.
    gain, offset : float
        That bring the re-blurred volume to the measured intensities: ``gain I + offset``.
    noise_gain, noise_floor : float
        The variance of noise at an intensity I is ``noise_gain I + noise_floor``.
    """

    channel: int
    cells: int
    signal_cells: int
    flagged_share: float
    flagged_signal_share: float
    invented_share: float
    missing_share: float
    spread_sd: float
    gain: float
    offset: float
    noise_gain: float
    noise_floor: float


class TrustFigures(Result):
    """What a trust map comes to.

    Attributes
    ----------
    map : str
        Path.
    blur : str
        What the restored volume was blurred with.
    cell_voxels : tuple of 3 ints
        Of the restored volume, order z, y, x.
    threshold_sd : float
        Score from which a cell is flagged, in standard deviations.
    tolerance_share : float
        Of the light that may be too much or missing.
    channels : tuple of TrustChannel
    worst : tuple of TrustPlace
        The worst first.
    """

    map: str
    blur: str
    cell_voxels: tuple[int, int, int]
    threshold_sd: float
    tolerance_share: float
    channels: tuple[TrustChannel, ...]
    worst: tuple[TrustPlace, ...]


def trusted(made: Volume, measured: Volume) -> TrustFigures | None:
    """Return what the trust map beside a restored volume comes to.

    Parameters
    ----------
    made, measured : Volume
        The restored volume, and what it was restored from.

    Returns
    -------
    TrustFigures or None
        None where there is no map, or where it is not finished, is of another restoration, or was
        made by another program.

    Raises
    ------
    InputError
        When there is one that can't be read, has lost files, or does not say what it comes to.
    """
    path = map_beside(made.path)
    if not path.exists():
        return None
    found = Volume(path.absolute())
    own = found.attributes
    if own is None or not own.complete or mismatch(found, made, measured):
        return None
    if not own.history or own.history[-1].step != "trust":
        return None
    found.require_complete()
    summary = read_summary(found)
    return TrustFigures(
        map=str(path),
        blur=summary.blur,
        cell_voxels=summary.cell,
        threshold_sd=summary.threshold,
        tolerance_share=summary.tolerance,
        channels=tuple(map(_channel, summary.channels)),
        worst=tuple(map(_place, summary.worst)),
    )


def _channel(found: ChannelTrust) -> TrustChannel:
    return TrustChannel(
        channel=found.channel,
        cells=found.cells,
        signal_cells=found.signal,
        flagged_share=found.flagged,
        flagged_signal_share=found.flagged_signal,
        invented_share=found.invented,
        missing_share=found.missing,
        spread_sd=found.spread,
        gain=found.gain,
        offset=found.offset,
        noise_gain=found.noise_gain,
        noise_floor=found.noise_floor,
    )


def _place(found: WorstPlace) -> TrustPlace:
    return TrustPlace(
        channel=found.channel,
        score_sd=found.score,
        voxel=found.voxel,
        position_um=found.um,
        grid_voxel=found.grid,
    )
