from __future__ import annotations

import functools
import http.client
import json
import os
import re
import shutil
import signal
import urllib.parse
import urllib.request
import webbrowser
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError
from isosr_pipeline.steps.view import remarks
from isosr_pipeline.store.metadata import Provenance, StoreAttributes
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.trust.beside import map_beside
from isosr_pipeline.viewing.byte_ranges import UnsatisfiableRange, parse_range
from isosr_pipeline.viewing.layers import open_scene
from isosr_pipeline.viewing.napari_window import napari_layers
from isosr_pipeline.viewing.server import ViewServer
from isosr_pipeline.viewing.state import neuroglancer_state
from isosr_pipeline.viewing.store_files import StoreFiles


def _ask(server, path, method="GET", **headers):
    """Send a path as it stands, which other clients would tidy up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def _root(server):
    return urllib.parse.urlsplit(server.url).path


@pytest.fixture
def pair(make_store):
    """A measured volume with long voxels, and one with isotropic voxels."""
    rng = np.random.default_rng(3)
    restored = rng.integers(100, 3000, (48, 40, 36), np.uint16)
    measured = make_store(restored[::4], voxel_size=(4, 1, 1))
    return measured.path, make_store(restored).path


def test_a_private_server_leads_only_to_names_of_this_machine(pair, served):
    server = served(*pair)
    for host, status in (
        ("127.0.0.1:1", 302),
        ("LOCALHOST:9000", 302),
        ("[::1]:80", 302),
        ("127.0.0.1.elsewhere.example", 403),
        ("elsewhere.example:9000", 403),
    ):
        answer, _ = _ask(server, _root(server), Host=host)
        assert answer.status == status
        assert ("Location" in answer.headers) is (status == 302)


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_every_file_of_a_store_is_served_as_it_is(make_store, noise, served, ngff):
    volume = make_store(np.stack([noise, noise[::-1]]), ngff=ngff)
    server = served(volume.path)
    files = [path for path in volume.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        name = path.relative_to(volume.path)
        answer, body = _ask(server, f"{_root(server)}stores/measured/{name}")
        assert (answer.status, body) == (200, path.read_bytes())


def test_what_the_metadata_does_not_name_is_not_served(make_store, noise, served, tmp_path):
    volume = make_store(noise)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    shutil.copy(secret, volume.path / "notes.txt")
    shutil.copy(secret, volume.path / "0" / "c" / "notes.txt")
    linked = volume.path / "0/c/0/0/0/0"
    linked.unlink()
    linked.symlink_to(secret)
    server = served(volume.path)
    names = [
        *("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "0/../../secret.txt"),
        *(
            "..%5csecret.txt",
            "....//secret.txt",
            "0/c/0/0/0/..%2f..%2f..%2f..%2f..%2f..%2fsecret.txt",
        ),
        *(str(secret), f"/{secret}", f"file://{secret}", "%00", "zarr.json%00", "zarr.json/"),
        *("notes.txt", "0/c/notes.txt", "0/c/0/0/0/0", "0/c/0/0/0", "", "0", "0/c", "./zarr.json"),
        *("0//zarr.json", "0/c/0/0/0/01", "0/c/0/0/0/9", "0/c/0/0/0/-1", "1/c/0/0/0/0/0"),
        "0/c/0/0/0/" + "9" * 5000,
    ]
    for name in names:
        for path in (f"{_root(server)}stores/measured/{name}", f"{_root(server)}{name}"):
            if not name and path == _root(server):
                continue
            answer, body = _ask(server, path)
            assert answer.status == 404, path
            assert b"secret" not in body
    assert _ask(server, f"{_root(server)}stores/measured/0/c/0/0/0/1")[0].status == 200


def test_nothing_is_served_without_the_secret(pair, served):
    server = served(*pair)
    token = _root(server).strip("/")
    assert len(token) == 40
    for path in ("/", "/stores/measured/zarr.json", f"/{token[:-1]}/", f"/v/{token[:-1]}/"):
        assert _ask(server, path)[0].status == 404
    assert _ask(server, f"/events/{'0' * 40}?c=1&gc=")[0].status == 404
    assert ViewServer(open_scene(*pair, None)).url != server.url


def test_nothing_can_be_written(pair, served):
    server = served(*pair)
    before = {path: path.stat().st_mtime_ns for path in pair[0].rglob("*")}
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer, _ = _ask(server, f"{_root(server)}stores/measured/zarr.json", method)
        assert answer.status == 405
    token = _root(server).strip("/")
    for place in ("state", "action", "credentials", "volume_response"):
        assert _ask(server, f"/{place}/{token}", "POST")[0].status == 404
    assert before == {path: path.stat().st_mtime_ns for path in pair[0].rglob("*")}


def test_parts_of_a_file_are_sent_and_its_size_alone(pair, served):
    server = served(*pair)
    path = next(path for path in pair[0].rglob("c/**/*") if path.is_file())
    whole, url = path.read_bytes(), f"{_root(server)}stores/measured/{path.relative_to(pair[0])}"
    answer, body = _ask(server, url, "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(whole)
    answer, body = _ask(server, url, Range="bytes=10-99")
    assert (answer.status, body) == (206, whole[10:100])
    assert answer.headers["Content-Range"] == f"bytes 10-99/{len(whole)}"
    assert _ask(server, url, Range="bytes=-100")[1] == whole[-100:]
    answer, _ = _ask(server, url, Range=f"bytes={len(whole)}-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(0, 50))
def test_ranges_are_those_of_slices(data, first, last):
    def part(header):
        try:
            found = parse_range(header, len(data))
        except UnsatisfiableRange:
            return b""
        return None if found is None else data[slice(*found)]

    closed = part(f"bytes={first}-{last}")
    assert closed == (data[first : last + 1] if first <= last else None)
    assert part(f"bytes={first}-") == data[first:]
    assert part(f"bytes=-{last}") == (data[-last:] if last else b"")
    for ignored in (None, "bytes=-", f"bytes={first}-{last},3-4", "lines=1-2", f"bytes={-first}-x"):
        assert part(ignored) is None


def test_a_level_that_lies_elsewhere_is_refused(pair, tmp_path):
    shutil.move(pair[0] / "0", tmp_path / "elsewhere")
    (pair[0] / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of the store"):
        ViewServer(open_scene(*pair, None))


def test_chunks_have_names_in_stores_of_other_programs(tmp_path):
    group = zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=2)
    array = group.create_array("s/0", shape=(1, 8, 8, 8), chunks=(1, 4, 4, 4), dtype="u1")
    array[:] = 7
    datasets = [
        {"path": "s/0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 4}]}
    ]
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "zyx")]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    (layer,) = open_scene(tmp_path / "other.zarr", None, None).layers
    files = StoreFiles(layer.volume)
    stored = [path for path in (tmp_path / "other.zarr" / "s" / "0").rglob("0.*") if path.is_file()]
    assert len(stored) == 8
    for path in stored:
        assert files.find(str(path.relative_to(tmp_path / "other.zarr"))) == path
    assert files.find("s/0/0/0/0/0") is None
    # Nothing is recorded of its intensities, all of which are the same.
    assert layer.ranges == ((7, 8),)


def test_both_volumes_are_shown_at_the_window_of_the_measured_one(pair):
    scene = open_scene(*pair, None)
    window = scene.measured.volume.attributes.windows[0][0]
    low, high = scene.measured.ranges[0]
    assert low <= window.low < low + 1
    assert high - 1 < window.high <= high
    assert scene.restored.ranges == scene.measured.ranges
    state = neuroglancer_state(scene, "http://here/stores", "beside")
    shown = [layer["shaderControls"]["intensity"]["range"] for layer in state["layers"]]
    assert shown == [[low, high]] * 2


def test_the_trust_map_beside_the_restored_volume_is_found(make_store, pair):
    cells = np.zeros((12, 10, 9), np.float32)
    cells[4:6] = -7.5
    made = make_store(cells, voxel_size=(4, 4, 4)).path
    assert open_scene(*pair, None).trust is None
    assert open_scene(*pair, made).trust.volume.path == made
    beside = map_beside(pair[1])
    assert beside.name == f"{pair[1].stem}.trust.zarr"
    made.rename(beside)
    scene = open_scene(*pair, None)
    assert scene.trust.volume.path == beside
    *_, layer = neuroglancer_state(scene, "http://here/stores", "over")["layers"]
    assert layer["name"] == "trust"
    assert layer["shaderControls"]["doubt"]["range"] == pytest.approx([0, 7.5], rel=1e-3)


def test_a_trust_map_of_another_restoration_is_not_shown(make_store, pair):
    restored = Volume(pair[1])
    map_of = functools.partial(Provenance, step="trust", source=str(pair[1]), versions={})
    trust = make_store(np.zeros((12, 10, 9), np.float32), voxel_size=(4, 4, 4))
    beside = map_beside(pair[1])
    trust.path.rename(beside)
    for made, is_shown in ((restored.identity, True), ("an earlier one", False)):
        history = [map_of(parameters={"source_id": made})]
        Volume(beside, writable=True).update(StoreAttributes(complete=True, history=history))
        scene = open_scene(*pair, None)
        assert (scene.trust is not None) is is_shown
        assert len(remarks(scene)) == (not is_shown)
    assert "make it again: isosr-pipeline trust" in remarks(scene)[0]
    with pytest.raises(InputError, match="another restoration"):
        open_scene(*pair, beside)


def test_channels_are_layers_with_names_of_their_own(make_store, noise):
    two = make_store(np.stack([noise, noise // 2])).path
    state = neuroglancer_state(open_scene(two, two, None), "http://here/stores", "beside")
    names = [layer["name"] for layer in state["layers"]]
    assert names == [f"{s} channel {i}" for s in ("measured", "restored") for i in (0, 1)]
    assert [layer["localPosition"] for layer in state["layers"]] == [[0], [1], [0], [1]]
    assert [viewer["layers"] for viewer in state["layout"]["children"]] == [names[:2], names[2:]]
    high = [layer["shaderControls"]["intensity"]["range"][1] for layer in state["layers"]]
    assert high[0] == pytest.approx(2 * high[1], rel=0.01)


def test_volumes_of_different_places_are_refused(make_store, noise, isosr, capsys, tmp_path):
    store, far = make_store(noise).path, make_store(noise).path
    attributes = json.loads((far / "zarr.json").read_text())
    for dataset in attributes["attributes"]["ome"]["multiscales"][0]["datasets"]:
        (moved,) = (t for t in dataset["coordinateTransformations"] if t["type"] == "translation")
        moved["translation"] = [0, 0, 900, 0]
    (far / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(InputError, match="along y"):
        open_scene(store, far, None)
    assert isosr("view", store, tmp_path / "none.zarr") == 2
    assert "none.zarr does not exist" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(pair, served, isosr, capsys):
    server = served(*pair)
    assert isosr("view", *pair, "--no-browser", "--port", server.port) == 2
    assert f"port {server.port} of 127.0.0.1 can't be listened at" in capsys.readouterr().err
    assert isosr("view", *pair, "--no-browser", "--host", "192.0.2.1") == 2
    assert "192.0.2.1" in capsys.readouterr().err


def test_ctrl_c_ends_it_well_also_while_a_page_is_open(pair, isosr, capsys, monkeypatch):
    opened, pages = [], []

    def visit(url):
        """Do what a browser does, keep its connection open, and press Ctrl-C."""
        page = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
        # The address is a secret, and the command line of a browser is not.
        assert page.stat().st_mode & 0o777 == 0o600
        (address,) = re.findall('url=([^"]*)"', page.read_text())
        assert address not in url
        pages.append(page)
        parts = urllib.parse.urlsplit(address)
        events = http.client.HTTPConnection(parts.netloc, timeout=20)
        events.request("GET", f"/v{parts.path}")
        assert b"<script" in events.getresponse().read()
        events.request("GET", f"/events{parts.path.rstrip('/')}?c=1&gc=")
        answer = events.getresponse()
        assert answer.readline().startswith(b"data: {")
        opened.extend([address, events, answer])
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(webbrowser, "open", visit)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    before = signal.getsignal(signal.SIGINT)
    assert isosr("view", *pair) == 0
    assert signal.getsignal(signal.SIGINT) is before
    url, events, answer = opened
    assert not pages[0].exists()
    shown = capsys.readouterr().out
    assert url in shown
    port = urllib.parse.urlsplit(url).port
    assert f"ssh -N -L {port}:127.0.0.1:{port}" in shown
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    events.close()


def test_the_page_comes_with_the_address_by_which_it_was_reached(pair, served):
    server = served(*pair)
    answer, _ = _ask(server, _root(server), Host="localhost:8000")
    assert answer.status == 302
    page, state = urllib.parse.unquote(answer.headers["Location"]).split("#!")
    assert page == f"http://localhost:8000/v{_root(server)}"
    sources = [layer["source"] for layer in json.loads(state)["layers"]]
    assert sources[1] == f"http://localhost:8000{_root(server)}stores/restored/|zarr3:"


def test_napari_that_is_not_there_is_named(pair, isosr, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "napari", None)
    assert isosr("view", *pair, "--napari") == 2
    assert "pip install 'napari[all]'" in capsys.readouterr().err
    assert isosr("view", *pair, "--napari", "--port", 8000) == 2
    assert "leave them out" in capsys.readouterr().err


def test_napari_gets_every_level_and_reads_only_what_it_looks_at(make_store, pair, monkeypatch):
    cells = make_store(np.zeros((12, 10, 9), np.float32), voxel_size=(4, 4, 4)).path
    scene = open_scene(*pair, cells)
    read = []
    original = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda a, k: read.append(k) or original(a, k))
    measured, restored, trust = napari_layers(scene)
    assert not read
    assert measured["scale"] == (4, 1, 1)
    assert [measured["contrast_limits"]] == [restored["contrast_limits"]]
    assert trust["contrast_limits"] == (-1, 1)
    (level,) = restored["data"]
    assert (level.shape, level.ndim, level.size) == ((48, 40, 36), 3, 48 * 40 * 36)
    np.testing.assert_array_equal(level[5], original(scene.restored.volume.arrays[0], (0, 5)))
    assert level[5, 3:9, ::2].shape == (6, 18)
    assert read == [(0, 5), (0, 5, slice(3, 9), slice(None, None, 2))]
