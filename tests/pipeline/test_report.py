"""Reports: what they show, and that they load nothing and run nothing but their own script."""

from __future__ import annotations

import html
import re
import shutil
import socket
from contextlib import nullcontext
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from distributed import Client, LocalCluster

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.trusted import trusted
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.reporting.cautions import cautions
from isosr_pipeline.reporting.checks import checks
from isosr_pipeline.reporting.pair import open_pair
from isosr_pipeline.reporting.pictures import round_length
from isosr_pipeline.reporting.planes import (
    brightest_place,
    coarse_levels,
    common_limits,
    projections,
    slices,
)
from isosr_pipeline.reporting.trust_map import open_trust
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.steps.report import check_report, write_report
from isosr_pipeline.store.metadata import Provenance, StoreAttributes
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside

SHAPE = (48, 56, 52)
BRIGHTEST = (30, 14, 36)
FLAGGED = (8, 4, 9)
"""The cell in which it lies: the middles of the first voxel and of the first cell are one place."""

HEIGHTS = (3000, 2400, 2500, 2450)
NASTY = "<img src=x onerror=document.title='broken'>"


def _spots(axial):
    """Bright Gaussian spots, `axial` times as wide along z."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    image = np.full(SHAPE, 100.0)
    places = (BRIGHTEST, (14, 14, 14), (24, 40, 16), (16, 40, 38))
    for height, (a, b, c) in zip(HEIGHTS, places, strict=True):
        squares = ((z - a) / axial) ** 2 + (y - b) ** 2 + (x - c) ** 2
        image += height * np.exp(-0.5 * squares / 1.5**2)
    return (image + np.random.default_rng(0).normal(0, 4, SHAPE)).astype(np.uint16)


@pytest.fixture
def pair(make_store, tmp_path):
    """Paths of both volumes; that of the restored one looks like HTML."""
    restored = tmp_path / f"{NASTY}.zarr"
    make_store(_spots(1)).path.rename(restored)
    return make_store(_spots(2)).path, restored


@pytest.fixture
def trust(make_store, pair):
    """A map of cells of 4 voxels, of which one is flagged, at the brightest spot."""
    scores = np.zeros((12, 14, 13), np.float32)
    scores[FLAGGED] = 9
    path = make_store(scores, voxel_size=(4, 4, 4)).path
    path.rename(map_beside(pair[1]))


@pytest.fixture
def found(pair):
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as threads,
        Client(threads) as client,
    ):
        return evaluate(*pair, EvaluateSettings(spots=True), lambda: nullcontext(client))


def _uncharted(found):
    """Leave out what takes most of the time of a page, for tests of all else."""
    none = {"spectra": None, "correlation": None}
    before, after = (side.model_copy(update=none) for side in (found.before, found.after))
    return found.model_copy(update={"before": before, "after": after, "spots": None})


class _Sources(HTMLParser):
    """Collects what a page would load, what it runs, and what its charts refer to."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.handlers, self.charts, self.ids, self.used = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.ids += [value for name, value in attrs if name == "id"]
        self.used += [value.removeprefix("#") for name, value in attrs if name == "xlink:href"]
        self.used += [found for _, value in attrs for found in re.findall(r"url\(#(.*?)\)", value)]
        if tag == "svg":
            self.charts.append(dict(attrs))


@pytest.mark.usefixtures("trust")
def test_a_report_holds_all_that_it_shows(found, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("an earlier one")
    write_report(found, out)
    page = out.read_text()
    sources = _Sources(page)
    assert all(value.startswith("data:") for value in sources.loaded)
    assert sources.handlers == []
    assert NASTY not in page
    assert "&lt;img src=x" in page
    # Projections and slices of three planes before and after, three again under the trust map.
    pictures = [value for value in sources.loaded if value.startswith("data:image/png")]
    assert len(pictures) == 2 * 6 + 2 * 3
    # Profiles of spots along three axes, spectra, shell correlation, widths, slabs.
    profiles = 3 * min(3, found.spots.count)
    assert profiles
    assert len(sources.charts) == profiles + 3 + 3 + 3 + 1
    assert "Power spectra: XZ" in {chart["aria-label"] for chart in sources.charts}
    # Charts of one page must not take parts of each other for their own.
    assert len(set(sources.ids)) == len(sources.ids)
    assert sources.used
    assert set(sources.used) <= set(sources.ids)
    assert not re.search(r"<\?xml|<metadata|<style type|<!doctype svg", page, re.IGNORECASE)
    assert "Restoration of" in page
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".partial"]
    assert "nothing can be told" not in page
    for spot in found.spots.pairs:
        assert min(abs(spot.height / height - 1) for height in HEIGHTS) < 0.05


@pytest.mark.usefixtures("trust")
def test_pictures_show_the_same_places(pair):
    opened = open_pair(*pair, 0)
    levels = coarse_levels(opened)
    centre = brightest_place(opened, levels[0])
    assert all(0 <= c < n for c, n in zip(centre, SHAPE, strict=True))
    image = _spots(1)
    for plane, axis in zip(projections(opened, levels), range(3), strict=True):
        assert np.array_equal(plane.after, image.max(axis=axis))
        assert plane.size_um == tuple(n for a, n in enumerate(SHAPE) if a != axis)
    trust = open_trust(opened)
    for plane, axis in zip(slices(opened, Zyx(*BRIGHTEST)), range(3), strict=True):
        assert np.array_equal(plane.after, np.take(image, BRIGHTEST[axis], axis=axis))
        drawn = trust.over(plane, opened)
        red = np.argwhere(drawn[..., 3])
        first = [4 * c - 2 for a, c in enumerate(FLAGGED) if a != axis]
        assert red.min(axis=0).tolist() == first
        assert len(red) == 4 * 4
        assert (drawn[tuple(red[0])][:3] == (230, 40, 20)).all()


@pytest.mark.usefixtures("trust")
def test_a_trust_map_of_another_restoration_is_left_out(pair):
    opened = open_pair(*pair, 0)
    path = map_beside(pair[1])
    ids = {"source_id": opened.made.identity, "measured_id": opened.measured.identity}
    for given, message in (
        (ids, None),
        ({**ids, "source_id": "earlier"}, "of an earlier or another restoration"),
        ({**ids, "measured_id": "other"}, "told from another volume"),
    ):
        step = Provenance(step="trust", source=str(pair[1]), parameters=given, versions={})
        Volume(path, writable=True).update(StoreAttributes(complete=True, history=[step]))
        if message is None:
            assert open_trust(opened) is not None
            continue
        with pytest.raises(InputError, match=message):
            open_trust(opened)


def _comes_to(pair):
    """Figures of a map's history."""
    terms = {"gain": 1.0, "offset": 0.0, "noise_gain": 1.0, "noise_floor": 4.0, "spread": 1.0}
    shares = {"flagged": 0.01, "flagged_signal": 0.3, "invented": 0.01, "missing": 0.0}
    channel = {"channel": 0, "cells": 1400, "signal": 50, **shares, **terms}
    first = {"voxel": list(BRIGHTEST), "um": [30.0, 14.0, 36.0], "grid": [30, 15, 37]}
    # As it was written before places were told on the grid of the whole volume.
    second = {"voxel": [14, 14, 14], "um": [14.0, 14.0, 14.0]}
    return {
        **{"store": str(pair[0]), "restored": str(pair[1]), "map": str(map_beside(pair[1]))},
        **{"blur": "a Gaussian", "cell": [4, 4, 4], "threshold": 5.0, "tolerance": 0.05},
        "channels": [channel],
        "worst": [{"channel": 0, "score": s, **at} for s, at in ((9.0, first), (-6.5, second))],
    }


def _tell(pair, figures, *, step="trust", complete=True):
    """Let the map say what it comes to."""
    made = Provenance(step=step, source=str(pair[1]), parameters={}, versions={}, figures=figures)
    own = StoreAttributes(complete=complete, history=[made])
    Volume(map_beside(pair[1]), writable=True).update(own)


@pytest.mark.usefixtures("trust")
def test_a_page_names_the_worst_places_and_shows_the_first(found, pair, tmp_path):
    made, measured = Volume(pair[1]), Volume(pair[0])
    assert trusted(made, measured) is None
    figures = _comes_to(pair)
    _tell(pair, figures)
    told = trusted(made, measured)
    assert [place.grid_voxel for place in told.worst] == [(30, 15, 37), None]
    told = _uncharted(found).model_copy(update={"trust": told})
    write_report(told, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 2 * 6 + 2 * 3 + 4 * 3
    for place in ("30, 14, 36", "14, 14, 14"):
        assert place in page
    assert "does not explain 30.0% of the cells with signal" in page
    assert "30.00% of the cells with signal are flagged" in page


@pytest.mark.usefixtures("trust")
def test_a_map_that_can_not_be_read_is_not_taken_for_none(pair):
    made, measured = Volume(pair[1]), Volume(pair[0])
    figures = _comes_to(pair)
    _tell(pair, figures, complete=False)
    assert trusted(made, measured) is None
    _tell(pair, figures, step="another program's")
    assert trusted(made, measured) is None
    renamed = {**figures, "limit": figures["threshold"]}
    del renamed["threshold"]
    _tell(pair, renamed)
    with pytest.raises(InputError, match=r"does not say .*threshold.* make it again: "):
        trusted(made, measured)
    (map_beside(pair[1]) / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="metadata that can't be read"):
        trusted(made, measured)


def test_a_page_says_what_could_not_be_checked(found, tmp_path):
    spots = found.spots.model_copy(
        update={"count": 0, "pairs": (), "left_out": {"at the border": 3}}
    )
    write_report(_uncharted(found).model_copy(update={"spots": spots}), tmp_path / "report.html")
    page = html.unescape((tmp_path / "report.html").read_text())
    assert f"run isosr-pipeline trust {found.store} {found.restored} MODEL" in page
    assert "No isolated bright spot could be fitted" in page
    assert "no spot could be fitted; left out: 3 at the border" in page
    assert "there was no reference" in page
    known = {one.name: bool(one.found) for one in checks(found, None, "why not")}
    assert not known["trust map"]
    assert not known["truth"]
    assert known["lateral planes"]
    assert known["widths of spots"]


def test_slices_are_taken_inside_and_shown_to_one_scale(make_store):
    image = np.random.default_rng(0).integers(0, 50, SHAPE, np.uint16)
    image[:, :, -1] = 900
    image[20:26, 22:30, 20:27] = 400
    path = make_store(image).path
    opened = open_pair(path, make_store(5 * image).path, 0)
    centre = brightest_place(opened, coarse_levels(opened)[0])
    # Repeated beyond the border, the bright face would draw the place to itself.
    assert all(n // 8 <= c < n - n // 8 for c, n in zip(centre, SHAPE, strict=True))
    for plane in slices(opened, centre):
        low, high = common_limits(plane)
        assert high == pytest.approx(np.percentile(plane.after, 99.9))
        assert low == pytest.approx(np.percentile(plane.before, 0.1))


def test_levels_that_are_read_are_small(make_store):
    wide = np.random.default_rng(1).integers(0, 99, (4, 600, 600), np.uint8)
    path = make_store(wide, chunk=(4, 64, 64), shard=(4, 256, 256)).path
    opened = open_pair(path, path, 0)
    assert len(opened.made.arrays) > 1
    most = wide.size // 3
    for level in coarse_levels(opened, most):
        assert level.voxels.size <= most
    (whole, _, _) = projections(opened, coarse_levels(opened, most))
    assert whole.size_um == (600, 600)
    assert coarse_levels(opened, 10) is None


def test_warnings_are_of_what_was_found(found):
    sharp = found.after.sharpness
    blunt = sharp.model_copy(update={"y_per_um": 0.5 * sharp.y_per_um, "x_per_um": 0.0})
    changed = found.model_copy(
        update={"after": found.after.model_copy(update={"sharpness": blunt})}
    )
    assert not any("Lateral planes changed" in line for line in cautions(found))
    (line,) = (line for line in cautions(changed) if "Lateral planes changed" in line)
    assert re.search(r"by -7\d%", line)


def test_a_path_that_is_no_page_is_refused_before_any_work(pair, tmp_path, isosr, capsys):
    assert isosr("evaluate", *pair, "--report", tmp_path / "report.pdf") == 2
    assert "a page is written as .html" in capsys.readouterr().err
    with pytest.raises(InputError, match="one lies in the other"):
        check_report(pair[1] / "report.html", *pair)
    with pytest.raises(InputError, match="is no folder"):
        check_report(tmp_path / "none" / "report.html", *pair)


def test_scale_bars_have_round_lengths():
    assert [round_length(x) for x in (0.7, 1.0, 49, 0.003)] == [0.5, 1, 20, 0.002]


@pytest.fixture(scope="module")
def browser(chromium):
    with chromium("window-size=1200,900") as started:
        yield started


def _require_self_contained(browser):
    """Check that all pictures are there, and that nothing is asked for elsewhere."""
    widths = browser.execute_async_script("""const done = arguments[0];
        Promise.all([...document.images].map(image => image.decode())).then(
            () => done([...document.images].map(image => image.naturalWidth)),
            error => done(String(error)));""")
    assert widths
    assert min(widths) > 0
    charts = browser.execute_script("""return [...document.querySelectorAll('.charts svg')].map(
        chart => [chart.getBoundingClientRect(), chart.parentNode.getBoundingClientRect()].map(
            box => [box.left, box.right]));""")
    assert all(a <= left < right <= b for (left, right), (a, b) in charts)
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/"
        script = """const [url, done] = arguments;
        const image = new Image();
        image.onload = () => done("loaded");
        image.onerror = () => fetch(url, {mode: "no-cors"}).then(
            () => done("sent"), error => done(error.name));
        image.src = url;"""
        assert browser.execute_async_script(script, url) == "TypeError"
        with pytest.raises(BlockingIOError):
            other.accept()


def _column(browser, table, index):
    return browser.execute_script(
        "return [...document.querySelector(arguments[0]).tBodies[0].rows]"
        ".map(row => row.cells[arguments[1]].dataset.value)",
        table,
        index,
    )


def _sort(browser, table, index):
    browser.execute_script(
        "document.querySelectorAll(arguments[0] + ' th button')[arguments[1]].click()",
        table,
        index,
    )


@pytest.mark.usefixtures("trust")
def test_a_browser_shows_the_report_and_sorts_its_table(browser, found, tmp_path):
    write_report(found, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    assert "onerror" in browser.title
    _require_self_contained(browser)
    before = [float(value) for value in _column(browser, "#key-figures", 1) if value]
    _sort(browser, "#key-figures", 1)
    assert [float(v) for v in _column(browser, "#key-figures", 1) if v] == sorted(before)
    _sort(browser, "#key-figures", 1)
    assert [float(v) for v in _column(browser, "#key-figures", 1) if v] == sorted(before)[::-1]


@pytest.fixture
def batch(tmp_path, make_store, pair, found):
    """Paths of brain files: evaluated, evaluated with other figures, not evaluated, damaged."""
    files = []
    for name, ratio in (("b#1", 0.5), ("a", 1.5), ("c", None), ("d", None)):
        out = tmp_path / "out" / name
        out.mkdir(parents=True)
        if ratio is not None:
            for kept, path in zip(("volume.zarr", "restored.zarr"), pair, strict=True):
                shutil.copytree(path, out / kept)
            after = found.after.model_copy(update={"axial_lateral_ratio": ratio})
            figures = found.model_copy(update={"after": after})
            (out / "evaluation.json").write_text(figures.model_dump_json())
            (out / "report.html").write_text(f"<title>report of {name}</title>")
        if name == "d":
            (out / "evaluation.json").write_text("{")
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump({"source": "x.tif", "output": f"out/{name}"}))
    return files


def test_a_browser_shows_the_index_of_a_batch_and_sorts_it(browser, batch, tmp_path, isosr, capsys):
    index = tmp_path / "index.html"
    gone = tmp_path / "gone.yaml"
    assert isosr("report", *batch, gone, "--index", index) == 0
    assert "5 brains, 2 of them evaluated" in capsys.readouterr().out
    browser.get(index.as_uri())
    _require_self_contained(browser)
    assert browser.execute_script("return document.images.length") == 4
    assert _column(browser, "#brains", 0) == ["b#1", "a", "c", "d", str(gone)]
    states = _column(browser, "#brains", 2)
    assert states == ["evaluated", "evaluated", *["convert not begun"] * 2, "unreadable"]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#brains .why')].map(why => why.textContent)"
    )
    assert "evaluation.json can't be read" in shown[0]
    assert "gone.yaml does not exist" in shown[1]
    (ratio,) = (
        number
        for number, text in enumerate(
            browser.execute_script(
                "return [...document.querySelectorAll('#brains th')].map(th => th.textContent)"
            )
        )
        if text == "axial/lateral ratio, restored"
    )
    # What is not known stays last.
    for expected in (["0.5", "1.5", "", "", ""], ["1.5", "0.5", "", "", ""]):
        _sort(browser, "#brains", ratio)
        assert _column(browser, "#brains", ratio) == expected
    _sort(browser, "#brains", 0)
    assert _column(browser, "#brains", 0) == [str(gone), "a", "b#1", "c", "d"]
    links = browser.execute_script("return [...document.links].map(link => link.href)")
    browser.get(links[-1])
    assert browser.title == "report of b#1"


def test_an_index_takes_the_place_of_no_report(batch, tmp_path, isosr, capsys):
    report = tmp_path / "out" / "a" / "report.html"
    before = report.read_text()
    assert isosr("report", *batch, "--index", report) == 2
    assert "one lies in the other" in capsys.readouterr().err
    assert report.read_text() == before
