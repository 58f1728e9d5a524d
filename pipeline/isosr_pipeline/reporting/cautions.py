"""What to look at before a result is trusted, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from isosr_pipeline.evidence.results import Evaluation, Figures, ShellCorrelation

LATERAL_CHANGE = 0.05
"""Of lateral sharpness, and of the lateral width of spots: shares beyond which it is told."""

DRIFT = 0.1
"""Of the mean signal: what a PSF moves across the border of a bright layer is less."""

CLIPPED = 1e-3
SATURATED = 1e-3
BEYOND_WINDOW = 1e-2
OVERSHOOT = 1.15
"""Axial/lateral ratio beyond which axial planes are sharper than what they learned from."""

FLAGGED = 0.01
"""Share of the cells with signal that may be flagged on the trust map without a warning."""

FINER = 0.8
"""Axial over lateral resolution below which the axial one is not believed."""


def cautions(evaluation: Evaluation) -> list[str]:
    """Return warnings, each with what was found and what to do; none where all is well.

    Parameters
    ----------
    evaluation : Evaluation
    """
    return [
        *_axial(evaluation),
        *_lateral(evaluation),
        *_intensities(evaluation),
        *_reference(evaluation),
        *_places(evaluation),
        *_unexplained(evaluation),
    ]


def _axial(evaluation: Evaluation) -> Iterator[str]:
    before, after = evaluation.before.axial_lateral_ratio, evaluation.after.axial_lateral_ratio
    if before is None or after is None:
        yield (
            "There is too little signal, or too few planes, to tell the axial/lateral ratio: "
            "judge by the pictures."
        )
        return
    if after <= before:
        yield (
            f"The axial/lateral ratio did not rise ({before:.2f} before, {after:.2f} after): "
            "nothing was gained along z; train longer, or another method."
        )
    if after > OVERSHOOT:
        yield (
            f"The axial/lateral ratio is {after:.2f}, and 1 is isotropic: axial planes have more "
            "fine detail than lateral ones; look for invented texture in XZ and YZ."
        )
    resolved = {axis: curve.resolution_um for axis, curve in _curves(evaluation.after).items()}
    axial, lateral = resolved.get("z"), [resolved.get(axis) for axis in ("y", "x")]
    finest = min((um for um in lateral if um is not None), default=0.0)
    if axial is not None and axial < FINER * finest:
        yield (
            f"The resolution along z is {axial:.3g} µm, finer than {finest:.3g} µm along y and x, "
            "from which it was learned: it may be that of noise; look for invented texture in XZ "
            "and YZ."
        )


def _lateral(evaluation: Evaluation) -> Iterator[str]:
    before, after = _sharpness(evaluation.before), _sharpness(evaluation.after)
    if before and after and abs(after / before - 1) > LATERAL_CHANGE:
        yield (
            f"Lateral planes changed by {after / before - 1:+.0%} in sharpness: they were sharp "
            "before, and should stay as they were; compare XY before and after."
        )
    spots = evaluation.spots
    if spots is not None and not spots.count:
        yield (
            "No isolated bright spot could be fitted, so that their widths tell nothing: take a "
            "volume with beads, or leave spots out."
        )
    if spots is None or spots.lateral_mismatch_um is None:
        return
    lateral = [spots.fwhm[axis].before_um for axis in ("y", "x")]
    width = sum(found.mean for found in lateral if found) / 2
    change = spots.lateral_mismatch_um.mean
    if width and abs(change) > LATERAL_CHANGE * width:
        yield (
            f"Spots changed by {change / width:+.0%} in lateral width ({change:+.3g} µm): check "
            "the profiles along x and y."
        )


def _intensities(evaluation: Evaluation) -> Iterator[str]:
    drift, counts = evaluation.drift, evaluation.counts
    if drift is not None and abs(drift.largest_relative_change) > DRIFT:
        yield (
            f"Mean intensity changed by up to {drift.largest_relative_change:+.0%} of the mean "
            "signal in slabs along z: don't compare intensities at different depths; see the "
            "chart of slabs."
        )
    if counts is not None and counts.clipped > CLIPPED * counts.voxels:
        yield (
            f"{counts.clipped / counts.voxels:.2%} of the restored voxels were cut to the range of "
            "the dtype: intensities of bright structures are too low."
        )
    if counts is not None and counts.saturated > BEYOND_WINDOW * counts.voxels:
        yield (
            f"{counts.saturated / counts.voxels:.1%} of the voxels lay outside the intensity "
            "window that the model was trained for: check the brightest and darkest structures."
        )
    extremes = evaluation.before.extremes
    if extremes is not None and (extremes.saturated_share or 0) > SATURATED:
        yield (
            f"{extremes.saturated_share:.2%} of the input's voxels are saturated: what was cut off "
            "when it was recorded can't be restored."
        )


def _reference(evaluation: Evaluation) -> Iterator[str]:
    before, after = evaluation.before.against_reference, evaluation.after.against_reference
    if before is None or after is None:
        return
    if after.psnr_db < before.psnr_db:
        yield (
            f"PSNR against the reference fell from {before.psnr_db:.1f} to {after.psnr_db:.1f} dB: "
            "the result is farther from the truth than the input."
        )
    rois = evaluation.rois
    if rois is not None and rois.improved_share < 0.5:
        yield (
            f"Only {rois.improved_share:.0%} of the sections got better against the reference: "
            "look for where they got worse."
        )


def _places(evaluation: Evaluation) -> Iterator[str]:
    worst = evaluation.seams.worst if evaluation.seams is not None else None
    if worst is not None and worst[1].excess.error is not None and worst[1].is_seam:
        yield f"Seams: {evaluation.seams}; restore with a larger halo."
    if evaluation.sampling is not None and evaluation.sampling.how == "even":
        yield (
            "Figures are of places that are spread evenly, since it could not be told where the "
            "volume shows something: they may be of background."
        )


def _unexplained(evaluation: Evaluation) -> Iterator[str]:
    for one in evaluation.trust.channels if evaluation.trust else ():
        if one.flagged_signal_share > FLAGGED:
            yield (
                f"The restored volume does not explain {one.flagged_signal_share:.1%} of the cells "
                f"with signal in channel {one.channel}: look at the trust map and its worst places."
            )


def _curves(figures: Figures) -> dict[str, ShellCorrelation]:
    return figures.correlation or {}


def _sharpness(figures: Figures) -> float | None:
    found = figures.sharpness
    return None if found is None else found.lateral_per_um
