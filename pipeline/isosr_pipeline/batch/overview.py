"""What an index says of each brain: how far it is, key figures, warnings and thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from isosr_pipeline.brain import Brain
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.distribution import Result
from isosr_pipeline.evidence.key_figures import key_figures
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.reporting.pair import open_pair
from isosr_pipeline.reporting.pictures import grey, png
from isosr_pipeline.reporting.planes import coarse_levels, common_limits, projections
from isosr_pipeline.steps.status import missing_results

MOST_VOXELS = 1 << 20
"""Voxels of a level of which thumbnails are made, at the most."""


class Overview(Result):
    """A line of an index.

    Attributes
    ----------
    name : str
    state : str
        How far the brain is; empty: it is not looked at here.
    why : str
        Why it is no further; empty where there is nothing to say.
    report : Path or None
        Its page, if there is one.
    figures : dict of str to (float or None, float or None)
        Key figures before and after, by their names.
    cautions : tuple of str
    thumbnails : tuple of str
        Addresses that hold XZ projections before and after; none where they can't be read.
    """

    name: str
    state: str = ""
    why: str = ""
    report: Path | None = None
    figures: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    thumbnails: tuple[str, ...] = ()


def overview(name: str, brain: Brain) -> Overview:
    """Sum up the results of a brain for an index; one that is damaged does not end the others.

    Parameters
    ----------
    name : str
    brain : Brain
    """
    try:
        # Those of an earlier run are not of what is there now.
        if brain.evaluation in missing_results(brain):
            return Overview(name=name)
        found = Evaluation.model_validate_json(brain.evaluation.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        return Overview(name=name, why=f"{brain.evaluation} can't be read: {reason}")
    return Overview(
        name=name,
        report=brain.report if brain.report.is_file() else None,
        figures={one.name: (one.before, one.after) for one in key_figures(found)},
        cautions=tuple(cautions(found)),
        thumbnails=tuple(_thumbnails(brain, found.settings.channel)),
    )


def common_figures(brains: Sequence[Overview]) -> list[str]:
    """Return the names of the figures that any of some brains has, in the order of the first."""
    return list(dict.fromkeys(name for brain in brains for name in brain.figures))


def _thumbnails(brain: Brain, channel: int) -> list[str]:
    try:
        pair = open_pair(brain.store, brain.restored, channel)
        levels = coarse_levels(pair, MOST_VOXELS)
    except (InputError, OSError):
        return []
    if levels is None:
        return []
    (plane,) = (plane for plane in projections(pair, levels) if plane.name == "XZ")
    low, high = common_limits(plane)
    return [png(grey(one, low, high)) for one in (plane.before, plane.after)]
