"""What was looked at before a result is called good, and what could not be told, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.evidence.spots import SpotComparison
from isosr_pipeline.reporting.trust_map import TrustMap


class Check(NamedTuple):
    """Something that is looked at.

    Parameters
    ----------
    name : str
    found : str
        Empty: it is not known.
    why : str
        Why it is not known, and how it would be; or what belongs to what was found.
    """

    name: str
    found: str
    why: str = ""


def checks(evaluation: Evaluation, trust: TrustMap | None, no_trust: str) -> list[Check]:
    """Return what is checked of a restoration, also what could not be.

    Parameters
    ----------
    evaluation : Evaluation
    trust : TrustMap or None
    no_trust : str
        Why there is no map, where there is none.
    """
    return [
        *_trust(trust, no_trust),
        _reference(evaluation),
        _lateral(evaluation),
        *_intensities(evaluation),
        _seams(evaluation),
        *_spots(evaluation.spots),
    ]


def _trust(trust: TrustMap | None, no_trust: str) -> Iterator[Check]:
    name = "trust map"
    if trust is None:
        yield Check(name, "", no_trust)
        return
    channels = trust.channels
    if not channels:
        yield Check(name, "", "the map does not say what it comes to")
    for one in channels:
        of = f", channel {one.get('channel')}" if len(channels) > 1 else ""
        flagged = one.get("flagged_signal")
        if not isinstance(flagged, int | float):
            yield Check(f"{name}{of}", "", "the map does not say what it comes to")
            continue
        found = f"{_share(flagged, 1)} of the cells with signal are flagged"
        yield Check(f"{name}{of}", found, "nothing else contradicts what was measured")


def _reference(evaluation: Evaluation) -> Check:
    before, after = evaluation.before.against_reference, evaluation.after.against_reference
    if before is None or after is None:
        return Check("truth", "", "there was no reference: evaluate --reference")
    return Check("truth", f"PSNR {before.psnr_db:.1f} dB before, {after.psnr_db:.1f} dB after")


def _lateral(evaluation: Evaluation) -> Check:
    found = [side.sharpness for side in (evaluation.before, evaluation.after)]
    before, after = (s.lateral_per_um if s else None for s in found)
    if not before or after is None:
        return Check("lateral planes", "", "too little signal, or too few planes")
    return Check("lateral planes", f"sharpness changed by {after / before - 1:+.1%}")


def _intensities(evaluation: Evaluation) -> Iterator[Check]:
    drift, counts, extremes = evaluation.drift, evaluation.counts, evaluation.before.extremes
    name = "intensity along z"
    if drift is None:
        yield Check(name, "", "the volume shows nothing, or has no level coarse enough")
    else:
        yield Check(name, f"slabs changed by up to {drift.largest_relative_change:+.1%}")
    for name, what in (
        ("clipped to the range of the dtype", "clipped"),
        ("outside the window of the model", "saturated"),
    ):
        if counts is None:
            yield Check(name, "", "the history of the restored volume does not tell")
        else:
            yield Check(name, f"{_share(getattr(counts, what), counts.voxels)} of the voxels")
    name = "saturated when it was recorded"
    if extremes is None or extremes.saturated_share is None:
        why = "too few planes" if extremes is None else "floats have no highest value"
        yield Check(name, "", why)
    else:
        yield Check(name, f"{_share(extremes.saturated_share, 1)} of the voxels of the input")


def _seams(evaluation: Evaluation) -> Check:
    if evaluation.seams is None:
        why = "restore measures its first channel, where there are blocks to compare"
        return Check("seams between blocks", "", why)
    worst = evaluation.seams.worst
    if worst is None or worst[1].excess.error is None:
        return Check("seams between blocks", "", str(evaluation.seams))
    return Check("seams between blocks", str(evaluation.seams))


def _spots(spots: SpotComparison | None) -> Iterator[Check]:
    name = "widths of spots"
    if spots is None:
        yield Check(name, "", "not looked for: evaluate --spots, where there are beads or synapses")
        return
    left_out = ", ".join(f"{count} {why}" for why, count in spots.left_out.items())
    left_out = f"left out: {left_out}" if left_out else "none left out"
    if not spots.count:
        yield Check(name, "", f"no spot could be fitted; {left_out}")
        return
    shift = spots.lateral_mismatch_um
    moved = f"; lateral width changed by {shift.mean:+.3g} µm" if shift else ""
    yield Check(name, f"{spots.count} spots{moved}", left_out)


def _share(count: float, whole: float) -> str:
    if not count:
        return "none"
    return f"{count / whole:.2%}" if count >= 1e-4 * whole else f"{count / whole:.1e}"
