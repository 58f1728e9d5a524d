"""Charts: what they show of figures, and that nothing but the figures decides how they look."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from isosr_pipeline.drawing import AFTER, BEFORE, draw
from isosr_pipeline.reporting.curves import Chart, Curve, histogram

_CODE = """
import os
from isosr_pipeline.reporting.curves import Chart, Curve
theirs = lambda: (os.environ["MPLBACKEND"], os.environ["MATPLOTLIBRC"])
before = theirs()
print(Chart("t", "x", "y", [Curve("a", [0, 1], [1, 5000], "#777777")], log_y=True).svg("n"))
assert theirs() == before
"""


def _drawn(chart):
    return ElementTree.fromstring(chart.svg("name"))  # noqa: S314 - drawn just now


def _with_stroke(root, colour, tag="path"):
    return [e for e in root.iter() if e.tag.endswith(tag) and colour in e.get("style", "")]


def _texts(root):
    return ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")]


def test_what_has_no_place_is_left_out():
    curve = Curve("a < b", [0.0, 1.0, 10.0, 100.0], [math.nan, 1.0, 0.0, 1000.0], "#123456")
    root = _drawn(Chart("t", "x", "y", [curve], log_x=True, log_y=True))
    line, sample = _with_stroke(root, "#123456")
    assert line.get("d").split()[::3] == ["M", "L"]
    assert line.get("clip-path")
    assert not sample.get("clip-path")
    assert {"t", "x", "y", "a < b", "100", "101", "102", "103"} <= set(_texts(root))


def test_a_chart_has_its_names_and_scales():
    curve = Curve("input", [0.0, 1.0], [2.0, 3.0], BEFORE)
    other = Curve("restored", [0.0, 1.0], [2.0, 4.0], AFTER, "points")
    chart = Chart("one & <two>", "z (µm)", "loss $a_", [curve, other])
    root = _drawn(chart)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "name"
    width, height = map(float, root.get("viewBox").split()[2:])
    assert (width, height) == (360, 240 + 17)
    assert {"one & <two>", "z (µm)", "loss $a_", "input", "restored"} <= set(_texts(root))
    # Two points, and their sample.
    assert len(_with_stroke(root, AFTER, "use")) == 3
    assert chart.svg("name") == chart.svg("name")
    ids, others = ({e.get("id") for e in ElementTree.fromstring(chart.svg(n)).iter()} for n in "ab")  # noqa: S314
    assert ids & others == {None}


def test_histograms_share_their_bins():
    chart = histogram("t", "x", [("a", [1.0, 1.0, 2.0], AFTER), ("b", [3.0], BEFORE)], bins=2)
    one, other = chart.curves
    assert one.x == other.x == [1.0, 2.0, 3.0]
    assert (one.y, other.y) == ([2, 1], [0, 1])
    root = _drawn(chart)
    filled = [e for e in _with_stroke(root, AFTER) if f"fill: {AFTER}" in e.get("style")]
    assert len(filled) == 1
    assert {"0", "1", "2"} <= set(_texts(root))
    assert "0.5" not in _texts(root)


def test_without_a_point_a_chart_says_so():
    for chart in (
        histogram("t", "x", [("a", [math.nan], BEFORE)]),
        Chart("t", "x", "y", [Curve("a", [1.0], [-1.0], BEFORE)], log_y=True),
    ):
        texts = _texts(_drawn(chart))
        assert sorted(texts) == ["nothing can be told", "t"]


@pytest.mark.parametrize("title", ["脑.zarr", "$x_", "a\x1bb", "\udcff", "<script>&"])
def test_a_title_may_be_any_name_of_a_file(title, caplog):
    drawn = draw(None, title, name=title, size=(360, 240))
    root = ElementTree.fromstring(drawn.encode())  # noqa: S314 - drawn just now
    assert "".join(c if c.isprintable() else "\ufffd" for c in title) in _texts(root)
    assert caplog.records == []


def test_neither_settings_nor_a_home_are_needed(tmp_path):
    settings = b"axes.facecolor: red\nfont.size: 30\n"
    (tmp_path / "matplotlibrc").write_bytes(settings)
    # The last byte is no text.
    (tmp_path / "own").write_bytes(settings + b"# \xe9\n")
    hidden = {"MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DISPLAY"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"MPLBACKEND": "module://a_notebook.its_backend", "TMPDIR": str(tmp_path)}
    environment["MATPLOTLIBRC"] = str(tmp_path / "own")
    # Where nothing can be made, not even by root.
    environment["HOME"] = os.devnull
    command = [sys.executable, "-W", "always", "-c", _CODE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stderr == ""
    chart = Chart("t", "x", "y", [Curve("a", [0, 1], [1, 5000], BEFORE)], log_y=True)
    assert done.stdout == chart.svg("n") + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matplotlibrc", "own"]


def test_settings_of_those_who_call_are_not_used():
    chart = Chart("t", "x", "y", [Curve("a", [0, 1], [1, 5000], BEFORE)], log_y=True)
    drawn = chart.svg("n")
    import matplotlib

    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
        assert chart.svg("n") == drawn
