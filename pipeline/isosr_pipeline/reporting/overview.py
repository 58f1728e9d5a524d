"""What an index says of each brain: key figures, warnings and thumbnails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from isosr_pipeline.brain import Brain
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.key_figures import key_figures
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.reporting.pair import open_pair
from isosr_pipeline.reporting.pictures import grey, png
from isosr_pipeline.reporting.planes import coarse_levels, common_limits, projections

MOST_VOXELS = 1 << 20
"""Voxels of a level of which thumbnails are made, at the most."""


class Overview(NamedTuple):
    """A line of an index.

    Parameters
    ----------
    name : str
    state : str
        ``"evaluated"``, or why there are no figures.
    link : str
        Address of the report, relative to the index; empty: there is none.
    figures : dict of str to (float or None, float or None)
        Key figures before and after, by their names.
    cautions : list of str
    thumbnails : list of str
        Addresses that hold XZ projections before and after; empty where they can't be read.
    """

    name: str
    state: str
    link: str
    figures: dict[str, tuple[float | None, float | None]]
    cautions: list[str]
    thumbnails: list[str]


def overview(name: str, brain: Brain, index: Path) -> Overview:
    """Sum up a brain for an index; one that is damaged is told, and does not end the others.

    Parameters
    ----------
    name : str
    brain : Brain
    index : Path
        Where the index will be.
    """
    if not brain.evaluation.is_file():
        return Overview(name, "no figures yet", "", {}, [], [])
    try:
        found = Evaluation.model_validate_json(brain.evaluation.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        return Overview(name, f"{brain.evaluation} can't be read: {reason}", "", {}, [], [])
    return Overview(
        name=name,
        state="evaluated",
        link=_relative(brain.report, index) if brain.report.is_file() else "",
        figures={one.name: (one.before, one.after) for one in key_figures(found)},
        cautions=cautions(found),
        thumbnails=_thumbnails(brain, found.settings.channel),
    )


def common_figures(brains: Sequence[Overview]) -> list[str]:
    """Return the names of the figures that any of some brains has, in the order of the first."""
    return list(dict.fromkeys(name for brain in brains for name in brain.figures))


def _relative(report: Path, index: Path) -> str:
    relative = os.path.relpath(report.absolute(), index.absolute().parent)
    # A colon in the first part would be read as that of a scheme.
    return f"./{quote(Path(relative).as_posix())}"


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
