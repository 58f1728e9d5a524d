"""What a real browser shows of volumes, and what it asks for; in Chromium without a window."""

from __future__ import annotations

import io
import json
import socket
import urllib.parse

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait
from skimage.io import imread

from isosr_pipeline.viewing.store_files import StoreFiles

BRIGHT = slice(60, 100)
"""Of the box along each axis, in the voxels of the restored volume."""

SIDE = 160
EDGES = (59.5, 99.5)
"""Of the box in µm."""

MEASURED_EDGES = (58, 98)
"""Along z, where planes stand for the slab around them: those of the box are 60, 64, … 96."""


@pytest.fixture(scope="module")
def net_log(tmp_path_factory):
    """Where Chromium records all that it asks for, once it has ended."""
    return tmp_path_factory.mktemp("log") / "net.json"


@pytest.fixture(scope="module")
def browser(chromium, net_log):
    drawing = ("use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader")
    quiet = ("disable-sync", "disable-quic", "force-device-scale-factor=1")
    with chromium("window-size=900,560", *drawing, *quiet, f"log-net-log={net_log}") as started:
        yield started


@pytest.fixture
def pair(make_store):
    """A bright box in a wavy volume, measured in every fourth plane, and isotropic."""
    z, y, x = np.ogrid[:SIDE, :SIDE, :SIDE]
    restored = (np.sin(x / 7) * np.sin(y / 9) * np.sin(z / 11) * 300 + 500).astype(np.uint16)
    restored[BRIGHT, BRIGHT, BRIGHT] = 1500

    def make(ngff):
        blocks = {"chunk": (32, 32, 32), "shard": (64, 64, 64), "ngff": ngff}
        measured = make_store(restored[::4], voxel_size=(4, 1, 1), **blocks)
        return measured.path, make_store(restored, **blocks).path

    return make


class Page:
    """A page of neuroglancer's that has been drawn, without lines and letters in its panels."""

    def __init__(self, browser, server):
        browser.get("about:blank")
        browser.get(server.url)
        self._browser = browser
        self.run("viewer.showScaleBar.value = viewer.showAxisLines.value = false")
        self.refresh()

    def refresh(self):
        """Wait until all chunks are there and drawn, then take a picture."""
        self._browser.execute_async_script("""const done = arguments[0];
        const drawn = () => requestAnimationFrame(() => setTimeout(done, 100));
        const look = () => setTimeout(() => viewer.isReady() ? drawn() : look(), 100);
        look();""")
        self.picture = imread(io.BytesIO(self._browser.get_screenshot_as_png()))[..., :3]

    def run(self, script, *values):
        return self._browser.execute_script(script, *values)

    def press(self, key, switch):
        """Press a key that switches something of the layers off."""
        self.run("viewer.element.focus()")
        ActionChains(self._browser).send_keys(key).perform()
        is_off = f"return !viewer.layerManager.{switch}"
        WebDriverWait(self._browser, 20).until(lambda _: self.run(is_off))
        self.refresh()

    def problems(self):
        """Return what neuroglancer says of sources and shaders that fail."""
        return self.run("""return viewer.layerManager.managedLayers.flatMap(({layer}) => [
            ...layer.dataSources.map(source => source.loadState && source.loadState.error),
            layer.shaderError.value && layer.shaderError.value.message,
            ...layer.renderLayers.flatMap(drawn => [...drawn.messages].map(m => m.message)),
        ]).filter(problem => problem).map(String)""")

    def panels(self):
        """Return the pictures of all panels, from left to right and top to bottom."""
        rectangles = self.run("""return [...viewer.display.panels]
            .map(panel => panel.element.getBoundingClientRect())
            .map(r => [r.left, r.top, r.right, r.bottom].map(Math.round))""")
        ordered = sorted(rectangles, key=lambda r: (r[0], r[1]))
        return [self.picture[top:bottom, left:right] for left, top, right, bottom in ordered]


@pytest.fixture
def found(monkeypatch):
    """Collect the names of files that are asked for."""
    names = []
    find = StoreFiles.find
    monkeypatch.setattr(StoreFiles, "find", lambda f, name: names.append(name) or find(f, name))
    return names


def _bright_lines(panel, axis):
    """Return the columns, or rows for axis 1, that are bright all along, unlike letters."""
    bright = np.all(panel > 250, axis=-1)
    return np.flatnonzero(bright.sum(axis=axis) > 40)


def _require_to_scale(panel, rows, columns):
    """Check where the bright box is, which begins and ends at the given places, in µm."""
    for axis, edges in ((1, rows), (0, columns)):
        lines = _bright_lines(panel, axis)
        # The middle of the volume is in the middle of the panel.
        scale, middle = SIDE / 400, panel.shape[1 - axis] / 2
        expected = [middle + (edge - (SIDE - 1) / 2) / scale for edge in edges]
        assert [lines[0], lines[-1] + 1] == pytest.approx(expected, abs=2)


def _colored(panel):
    """Count red and blue pixels; the border of a volume is yellow."""
    red, green, blue = panel.reshape(-1, 3).astype(int).T
    return (red > green + 60).sum(), (blue > red + 60).sum()


def test_both_volumes_and_the_trust_map_are_drawn_to_scale(browser, pair, make_store, served):
    cells = np.zeros((40, 40, 40), np.float32)
    cells[3:8, 3:8, 3:8], cells[3:8, 3:8, 12:17] = 9, -9
    trust = make_store(cells, voxel_size=(4, 4, 4)).path
    page = Page(browser, served(*pair("0.5"), trust))
    assert page.problems() == []
    panels = page.panels()
    assert len(panels) == 8
    assert all(panel.std() > 5 for panel in panels)
    measured, restored = panels[:4], panels[4:]
    for xy, _, xz, _ in (measured, restored):
        _require_to_scale(xy, EDGES, EDGES)
        _require_to_scale(xz, MEASURED_EDGES if xy is measured[0] else EDGES, EDGES)
    assert np.abs(measured[2].astype(float) - restored[2]).mean() > 1

    page.run("viewer.position.value = Float32Array.of(40, 22, 22)")
    page.refresh()
    moved = page.panels()
    assert all(np.abs(a.astype(float) - b).mean() > 1 for a, b in zip(panels, moved, strict=True))
    # Cells of 20 µm are squares of 50 pixels: red where there is too much light, blue elsewhere.
    assert _colored(moved[4]) == pytest.approx((2500, 2500), rel=0.2)
    assert max(_colored(moved[0])) < 250


def test_one_over_the_other_is_switched_by_keys_also_in_zarr_2(browser, pair, served):
    page = Page(browser, served(*pair("0.4"), layout="over"))
    assert page.problems() == []
    panels = page.panels()
    assert len(panels) == 4
    xy, _, xz, _ = panels
    _require_to_scale(xy, EDGES, EDGES)
    _require_to_scale(xz, EDGES, EDGES)
    page.press("2", "managedLayers[1].visible")
    _require_to_scale(page.panels()[2], MEASURED_EDGES, EDGES)
    page.press("1", "managedLayers[0].visible")
    assert not _bright_lines(page.panels()[2], 1).size


def test_a_large_volume_is_shown_from_its_pyramid_in_its_colors(browser, make_store, served, found):
    halves = np.zeros((2, 2, 1600, 1600), np.uint8)
    halves[0, :, :800], halves[1, :, :, :800] = 200, 200
    volume = make_store(halves, chunk=(2, 64, 64), shard=(2, 256, 256))
    assert len(volume.arrays) == 5
    page = Page(browser, served(volume.path))
    assert page.problems() == []
    levels = {name.split("/")[0] for name in found if "/c/" in name}
    assert levels
    assert levels <= {"2", "3", "4"}
    xy = page.panels()[0]
    height, width, _ = xy.shape
    picked = [tuple(xy[height // 2 + dy, width // 2 + dx]) for dy in (-50, 50) for dx in (-50, 50)]
    assert picked == [(255, 255, 255), (0, 255, 0), (255, 0, 255), (0, 0, 0)]


def test_nobody_else_is_asked_for_anything(browser, net_log, pair, served):
    server = served(*pair("0.5"))
    page = Page(browser, server)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/"
        script = """const [url, done] = arguments;
        fetch(url, {mode: "no-cors"}).then(() => done("sent"), error => done(error.name));"""
        assert browser.execute_async_script(script, url) == "TypeError"
        # A worker reads the data; this one is told to read some from elsewhere.
        page.run(
            """const state = viewer.state.toJSON();
            state.layers[0].source = arguments[0] + "|zarr3:";
            viewer.state.restoreState(state);""",
            url,
        )
        WebDriverWait(browser, 20).until(lambda _: page.problems())
        with pytest.raises(BlockingIOError):
            other.accept()
    browser.quit()
    events = json.loads(net_log.read_text())["events"]
    # Chromium also asks for things of its own, which are not the page's.
    asked = {
        urllib.parse.urlsplit(event["params"]["url"])
        for event in events
        if event.get("params", {}).get("initiator") == f"http://127.0.0.1:{server.port}"
        and "url" in event["params"]
    }
    assert any("/stores/restored/0/c/" in url.path for url in asked)
    assert {url.netloc for url in asked} == {f"127.0.0.1:{server.port}"}
