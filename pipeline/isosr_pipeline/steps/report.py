"""Report: what restoration did to a volume, as one page with pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from isosr_pipeline.drawing import Chart
from isosr_pipeline.engine.output import refuse_overlap
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.key_figures import key_figures
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.reporting.charts import ChartSection, chart_sections
from isosr_pipeline.reporting.losses import find_model, loss_charts
from isosr_pipeline.reporting.page import check_page, render, write_page
from isosr_pipeline.reporting.pair import Pair, open_pair
from isosr_pipeline.reporting.pictures import Shown, show, svg
from isosr_pipeline.reporting.planes import (
    brightest_place,
    coarse_levels,
    middle,
    projections,
    slices,
)
from isosr_pipeline.reporting.profiles import profile_charts
from isosr_pipeline.reporting.trust_map import TrustMap, open_trust
from isosr_pipeline.store.metadata import Provenance

_NO_LEVEL = (
    "There are no projections: a volume has no level that is small enough to be read as a whole."
)
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


def write_report(evaluation: Evaluation, path: Path, *, model: Path | None = None) -> None:
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

    Raises
    ------
    InputError
        When a volume can't be read.
    OutputPathError
        When the report can't be written.
    """
    store, restored = Path(evaluation.store), Path(evaluation.restored)
    pair = open_pair(store, restored, evaluation.settings.channel)
    notes = [_NO_REFERENCE] if evaluation.before.against_reference is None else []
    trust = _trust(pair, notes)
    content = render(
        "report.html",
        title=f"Restoration of {_name(restored)}",
        evaluation=evaluation,
        key_figures=key_figures(evaluation),
        cautions=[*cautions(evaluation), *_trust_cautions(trust)],
        pictures=list(_pictures(pair, trust, notes)),
        trust=trust,
        trust_rows=_trust_rows(trust),
        sections=list(_sections(evaluation, pair, model, notes)),
        steps=[_Step.of(step) for step in _history(pair, evaluation)],
        # The list is filled by what comes before it.
        notes=notes,
    )
    write_page(path, content)


class _Pictures(NamedTuple):
    """Planes under a heading."""

    title: str
    explanation: str
    planes: list[Shown]


class _Drawn(NamedTuple):
    """A chart that the page holds itself."""

    title: str
    address: str

    @classmethod
    def of(cls, chart: Chart) -> _Drawn:
        return cls(chart.title, svg(chart.svg()))


class _Section(NamedTuple):
    """Charts under a heading."""

    title: str
    explanation: str
    charts: list[_Drawn]

    @classmethod
    def of(cls, section: ChartSection) -> _Section:
        charts = [_Drawn.of(chart) for chart in section.charts]
        return cls(section.title, section.explanation, charts)


class _Step(NamedTuple):
    """A step that led to the restored volume."""

    step: str
    source: str
    parameters: dict[str, Any]
    text: str
    versions: str

    @classmethod
    def of(cls, found: Provenance) -> _Step:
        recorded = {**found.parameters, "command": found.command, "figures": found.figures}
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        return cls(
            found.step,
            found.source,
            found.parameters,
            json.dumps(recorded, indent=1, ensure_ascii=False),
            versions,
        )


def _name(restored: Path) -> str:
    """Name a volume by its folder, too, since those of brain files have one name."""
    path = restored.absolute()
    return f"{path.parent.name}/{path.name}"


def _history(pair: Pair, evaluation: Evaluation) -> list[Provenance]:
    own = pair.made.attributes
    settings = evaluation.settings.model_dump(mode="json")
    last = Provenance(
        step="evaluate", source=evaluation.restored, parameters=settings, versions={}, command=[]
    )
    return [*(own.history if own else []), last]


def _pictures(pair: Pair, trust: TrustMap | None, notes: list[str]) -> Iterator[_Pictures]:
    levels = coarse_levels(pair)
    if levels is None:
        notes.append(_NO_LEVEL)
    else:
        yield _Pictures(
            "Maximum intensity projections",
            "Of the whole volume, from coarse levels of the pyramid. Both are shown at the "
            "intensities of the input.",
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
    training = _training(pair, model, notes)
    if training is not None:
        yield _Section.of(training)


def _training(pair: Pair, model: Path | None, notes: list[str]) -> ChartSection | None:
    own = pair.made.attributes
    if not own or not own.history or own.history[-1].step != "restore":
        return None
    beside = [pair.made.path.parent / "model"]
    found = find_model([*([model] if model else []), *beside], own.history[-1])
    if found is None:
        return None
    try:
        charts = loss_charts(found)
    except InputError as error:
        notes.append(f"There are no curves of the training: {error}")
        return None
    explanation = f"Losses of {found}, means over neighbouring iterations."
    return ChartSection("Training", explanation, charts) if charts else None


def _trust(pair: Pair, notes: list[str]) -> TrustMap | None:
    try:
        return open_trust(pair)
    except InputError as error:
        notes.append(f"The trust map is not shown: {error}")
        return None


def _channels(trust: TrustMap | None) -> list[dict[str, Any]]:
    """Return what the map's history tells of channels, as far as it does."""
    found = trust.figures.get("channels") if trust else None
    channels = found if isinstance(found, list) else []
    return [one for one in channels if isinstance(one, dict)]


def _trust_rows(trust: TrustMap | None) -> list[list[float | None]]:
    names = ("channel", "cells", "flagged", "invented", "missing")
    return [[_figure(one.get(name)) for name in names] for one in _channels(trust)]


def _figure(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _trust_cautions(trust: TrustMap | None) -> Iterator[str]:
    for one in _channels(trust):
        flagged = _figure(one.get("flagged_signal"))
        if flagged is not None and flagged > 0.01:
            yield (
                f"The restored volume does not explain {flagged:.1%} of the cells with signal in "
                f"channel {one.get('channel')}: look at the trust map over the slices."
            )
