"""Report: what restoration did to a volume, as one page with pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from isosr_pipeline.engine.output import refuse_overlap, versions
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.key_figures import key_figures, untold
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.reporting.charts import ChartSection, chart_sections
from isosr_pipeline.reporting.checks import checks
from isosr_pipeline.reporting.history import day_and_time, steps_of
from isosr_pipeline.reporting.losses import find_model, loss_charts
from isosr_pipeline.reporting.page import check_page, render, write_page
from isosr_pipeline.reporting.pair import Pair, open_pair
from isosr_pipeline.reporting.pictures import Shown, show
from isosr_pipeline.reporting.planes import (
    brightest_place,
    coarse_levels,
    middle,
    projections,
    slices,
)
from isosr_pipeline.reporting.profiles import profile_charts
from isosr_pipeline.reporting.trust_map import TrustMap, open_trust

_NO_LEVEL = (
    "There are no projections: a volume has no level that is small enough to be read as a whole."
)
_MOST_PLACES = 10

_NO_REFERENCE = (
    "There was no reference: these figures tell how fine the restored detail is, and not that it "
    "is true."
)


def check_report(path: Path, store: Path, restored: Path) -> None:
    """Refuse a path that no report can be written to, before any work is done for it.

    Parameters
    ----------
    path : Path
        A report that is there will be replaced.
    store, restored : Path
        What the report is about.

    Raises
    ------
    InputError
        When it is no HTML file, lies in one of the stores, or can't be made.
    """
    refuse_overlap(path, [store, restored])
    check_page(path)


def write_report(
    evaluation: Evaluation,
    path: Path,
    *,
    model: Path | None = None,
    no_trust: str | None = None,
) -> None:
    """Draw a report and write it as one file, which is there whole or not at all.

    Pictures are read from coarse levels and small windows, however large the volumes are.

    Parameters
    ----------
    evaluation : Evaluation
        Its volumes are read again.
    path : Path
        An HTML file; one that is there is replaced.
    model : Path, optional
        Where the model may be that restored the volume, besides its folder ``model`` beside it and
        those of the command that the provenance names.
    no_trust : str, optional
        Why no trust map can be made, where it is known.

    Raises
    ------
    InputError
        When a volume can't be read.
    OutputPathError
        When the report can't be written.
    """
    channel = evaluation.settings.channel
    pair = open_pair(Path(evaluation.store), Path(evaluation.restored), channel)
    made_by = _model(pair, model)
    trust, why = _trust(pair, made_by, no_trust)
    checked = checks(evaluation, trust, why)
    content = render(
        "report.html",
        title=f"Restoration of {_name(pair.made.path)}",
        evaluation=evaluation,
        key_figures=key_figures(evaluation),
        cautions=cautions(evaluation),
        checks=checked,
        known=", ".join(one.name for one in checked if one.found),
        steps=list(steps_of(pair, evaluation, made_by)),
        drawn=day_and_time(time.time()),
        program=versions()["isosr-pipeline"],
        no_trust=why,
        **_of_map(pair, trust, channel),
        **_drawn(evaluation, pair, made_by, trust),
    )
    write_page(path, content)


def _of_map(pair: Pair, trust: TrustMap | None, channel: int) -> dict[str, Any]:
    """Return what the page shows of the trust map alone."""
    return {
        "trust": trust,
        "trust_rows": _trust_rows(trust),
        "worst": _worst_places(trust),
        "worst_pictures": _worst_pictures(pair, trust, channel),
    }


def _drawn(
    evaluation: Evaluation, pair: Pair, model: Path | None, trust: TrustMap | None
) -> dict[str, Any]:
    """Draw pictures and charts, and note what is not there."""
    notes = [f"{why[0].upper()}{why[1:]}." for why in untold(evaluation)]
    if evaluation.before.against_reference is None:
        notes.append(_NO_REFERENCE)
    return {
        "pictures": list(_pictures(pair, trust, notes)),
        "sections": list(_sections(evaluation, pair, model, notes)),
        # The list is filled by what comes before it.
        "notes": notes,
    }


class _Pictures(NamedTuple):
    """Planes under a heading."""

    title: str
    explanation: str
    planes: list[Shown]


class _Section(NamedTuple):
    """Charts under a heading, as SVG elements."""

    title: str
    explanation: str
    charts: list[str]

    @classmethod
    def of(cls, section: ChartSection) -> _Section:
        charts = [chart.svg(f"{section.title}: {chart.title}") for chart in section.charts]
        return cls(section.title, section.explanation, charts)


def _name(restored: Path) -> str:
    """Name a volume by its folder, too, since those of brain files have one name."""
    path = restored.absolute()
    return f"{path.parent.name}/{path.name}"


def _pictures(pair: Pair, trust: TrustMap | None, notes: list[str]) -> Iterator[_Pictures]:
    levels = coarse_levels(pair)
    if levels is None:
        notes.append(_NO_LEVEL)
    else:
        yield _Pictures(
            "Maximum intensity projections",
            "Of the whole volume, from coarse levels of the pyramid. Both are shown at one "
            "intensity scale, that of the brighter of the two.",
            [show(plane) for plane in projections(pair, levels)],
        )
    centre = middle(pair) if levels is None else brightest_place(pair, levels[0])
    planes = [
        show(plane, trust.over(plane, pair) if trust else None) for plane in slices(pair, centre)
    ]
    where = ", ".join(str(c) for c in centre)
    yield _Pictures(
        "Slices",
        f"At full resolution, around the voxel {where} (z, y, x) of the restored volume, near "
        "which the input is brightest; the input is resampled along z.",
        planes,
    )


def _sections(
    evaluation: Evaluation, pair: Pair, model: Path | None, notes: list[str]
) -> Iterator[_Section]:
    spots = evaluation.spots
    if spots is not None and spots.count:
        yield _Section.of(
            ChartSection(
                "Profiles through the brightest spots",
                "Intensities along lines of voxels (points), and Gaussians of the fitted width "
                "(lines); positions are those from the centre before restoration.",
                list(profile_charts(pair, spots)),
            )
        )
    for section in chart_sections(evaluation):
        yield _Section.of(section)
    training = _training(model, notes)
    if training is not None:
        yield _Section.of(training)


def _model(pair: Pair, model: Path | None) -> Path | None:
    own = pair.made.attributes
    if not own or not own.history or own.history[-1].step != "restore":
        return None
    beside = [pair.made.path.parent / "model"]
    return find_model([*([model] if model else []), *beside], own.history[-1])


def _training(model: Path | None, notes: list[str]) -> ChartSection | None:
    if model is None:
        return None
    try:
        charts = loss_charts(model)
    except InputError as error:
        notes.append(f"There are no curves of the training: {error}")
        return None
    explanation = f"Losses of {model}, means over neighbouring iterations."
    return ChartSection("Training", explanation, charts) if charts else None


def _trust(pair: Pair, model: Path | None, no_trust: str | None) -> tuple[TrustMap | None, str]:
    """Open the trust map; without one, say why there is none."""
    try:
        found = open_trust(pair)
    except InputError as error:
        return None, f"the trust map is not shown: {error}"
    if found is None and no_trust is None:
        no_trust = (
            f"no trust map was made of this channel: run isosr-pipeline trust {pair.measured.path} "
            f"{pair.made.path} {model or 'MODEL'}, then make this report again"
        )
    elif found is None:
        no_trust = f"no trust map can be made: {no_trust}"
    return found, no_trust or ""


def _trust_rows(trust: TrustMap | None) -> list[list[float | None]]:
    names = ("channel", "cells", "flagged", "invented", "missing")
    channels = trust.channels if trust else []
    return [[_figure(one.get(name)) for name in names] for one in channels]


class _Worst(NamedTuple):
    """A place of the list of the worst."""

    channel: float | None
    score: float
    voxel: str
    um: str

    @classmethod
    def of(cls, found: dict[str, Any]) -> _Worst:
        voxel, um = (", ".join(f"{at:.6g}" for at in found[name]) for name in ("voxel", "um"))
        return cls(_figure(found.get("channel")), found["score"], voxel, um)


def _worst_places(trust: TrustMap | None) -> list[_Worst]:
    found = trust.worst()[:_MOST_PLACES] if trust else []
    try:
        return [_Worst.of(one) for one in found]
    except (KeyError, TypeError, ValueError):
        # A map of another program may name places in another way.
        return []


def _worst_pictures(pair: Pair, trust: TrustMap | None, channel: int) -> _Pictures | None:
    """Read planes through the worst place of the channel that the report is of."""
    found = trust.worst(channel) if trust else []
    place = found[0].get("voxel") if found else None
    if trust is None or not isinstance(place, list | tuple) or len(place) != 3:
        return None
    lengths = pair.after.shape
    centre = Zyx(*(min(max(int(p), 0), n - 1) for p, n in zip(place, lengths, strict=True)))
    planes = [show(plane, trust.over(plane, pair)) for plane in slices(pair, centre)]
    where = ", ".join(map(str, centre))
    explanation = f"At full resolution, through the first of the list: the voxel {where} (z, y, x)."
    return _Pictures("The worst place", explanation, planes)


def _figure(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
