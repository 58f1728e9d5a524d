"""PSFs from beads: which are averaged, and how wide they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from isosr_pipeline.blur import beads as module
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.tiffs import write_tiff
from isosr_pipeline.widths import FWHM_PER_SIGMA

SHAPE, SIZE = (60, 90, 110), (0.4, 0.2, 0.2)
FWHM = (2.4, 0.8, 0.9)
SINGLE = [(20.2, 20.7, 20.1, 900), (38.6, 22.1, 80.4, 700), (25.5, 62.9, 50.2, 800)]
SINGLE += [(35.1, 66.3, 89.7, 850)]
PAIR = [(40.0, 50.0, 20.0, 900), (40.0, 56.0, 20.0, 900)]
AT_THE_BORDER = [(3.0, 45.0, 70.0, 800)]


def beads(places, dtype=np.uint16):
    """Image beads at places in voxels, each with its brightness."""
    grids = np.indices(SHAPE)
    volume = np.full(SHAPE, 100.0)
    for *centre, height in places:
        widths = zip(grids, centre, SIZE, FWHM, strict=True)
        square = sum(((g - c) * s * FWHM_PER_SIGMA / w) ** 2 for g, c, s, w in widths)
        volume += height * np.exp(-0.5 * square)
    return np.random.default_rng(5).poisson(volume).astype(dtype)


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "beads.tif"
    write_tiff(path, beads([*SINGLE, *PAIR, *AT_THE_BORDER]), SIZE)
    return path


def test_single_beads_are_found_and_their_widths_are_right(isosr, volume, tmp_path, capsys):
    out = tmp_path / "psf.tif"
    assert isosr("psf", volume, "--from-beads", out, "--json", "--bead-diameter", 0.5) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["beads"] == len(SINGLE)
    assert found["rejected"] == {"with a neighbour": 2, "at the border": 1}
    for axis, width in zip("zyx", FWHM, strict=True):
        told = found["fwhm"][axis]
        assert told["mean_um"] == pytest.approx(width, rel=0.03)
        assert told["average_um"] == pytest.approx(width, rel=0.03)
        assert 0 < told["spread_um"] < 0.05 * width
        # The variance of an even sphere is a 20th of its diameter's square.
        less = (told["mean_um"] ** 2 - FWHM_PER_SIGMA**2 * 0.5**2 / 20) ** 0.5
        assert told["less_bead_um"] == pytest.approx(less)
    psf = tifffile.imread(out)
    assert psf.dtype == np.float32
    assert np.unravel_index(psf.argmax(), psf.shape) == tuple(n // 2 for n in psf.shape)
    assert psf.max() == pytest.approx(1, abs=0.05)
    assert abs(np.median(psf[0])) < 0.02


def test_tiles_change_nothing(isosr, volume, tmp_path, capsys, monkeypatch):
    told = []
    for tile in ((64, 256, 256), (23, 40, 31)):
        monkeypatch.setattr(module, "_TILE", Zyx(*tile))
        out = tmp_path / "psf.tif"
        assert isosr("psf", volume, "--from-beads", out, "--overwrite", "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["beads"] == told[1]["beads"] == len(SINGLE)
    for axis in "zyx":
        one, other = (found["fwhm"][axis]["mean_um"] for found in told)
        assert one == pytest.approx(other, rel=1e-3)


def test_a_store_serves_as_well_as_a_file(isosr, make_store, volume, tmp_path, capsys):
    store = make_store(tifffile.imread(volume), voxel_size=SIZE)
    assert isosr("psf", store.path, "--from-beads", tmp_path / "psf.tif") == 0
    shown = capsys.readouterr().out
    assert "beads        4; spots left out: 2 with a neighbour, 1 at the border" in shown
    assert "FWHM z       2.4" in shown


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: beads(PAIR), [], "no isolated bead (spots left out: 2 with a neighbour)"),
        (lambda: beads([]), [], "shows no bead"),
        (lambda: np.minimum(beads(SINGLE), 255).astype(np.uint8), [], "saturated"),
        (lambda: beads(SINGLE), ["--bead-diameter", 3], "mend --bead-diameter"),
        (lambda: beads(SINGLE), ["--channel", 1], "1 channels, and channel 1"),
        (lambda: beads(SINGLE), ["--plot", "x.svg"], "--plot means nothing with --from-beads"),
        (lambda: beads(SINGLE), ["--voxel-size", "1,2"], "--voxel-size is '1,2'"),
    ],
)
def test_what_gives_no_psf_is_refused(isosr, tmp_path, capsys, make, options, message):
    path, out = tmp_path / "beads.tif", tmp_path / "psf.tif"
    write_tiff(path, make(), SIZE)
    assert isosr("psf", path, "--from-beads", out, *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_files_are_not_overwritten_and_need_a_voxel_size(isosr, volume, tmp_path, capsys):
    out = tmp_path / "psf.tif"
    out.write_text("precious")
    assert isosr("psf", volume, "--from-beads", out) == 2
    assert isosr("psf", volume, "--from-beads", volume, "--overwrite") == 2
    assert "give two paths" in capsys.readouterr().err
    assert out.read_text() == "precious"
    bare = tmp_path / "bare.tif"
    tifffile.imwrite(bare, tifffile.imread(volume))
    assert isosr("psf", bare, "--from-beads", tmp_path / "b.tif") == 2
    assert "--voxel-size" in capsys.readouterr().err
    given = ["--voxel-size", "0.8,0.4,0.4", "--json"]
    assert isosr("psf", bare, "--from-beads", tmp_path / "b.tif", *given) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fwhm"]["z"]["mean_um"] == pytest.approx(2 * FWHM[0], rel=0.03)
    assert isosr("psf", volume, "--bead-diameter", 1) == 2
    assert "give --from-beads" in capsys.readouterr().err


def test_real_beads(isosr, data, tmp_path, capsys):
    out = tmp_path / "psf.tif"
    assert isosr("psf", data / "beads_confocal.tif", "--from-beads", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["beads"], found["rejected"]) == (4, {})
    for axis, width in (("z", 0.58), ("y", 0.22), ("x", 0.17)):
        assert found["fwhm"][axis]["mean_um"] == pytest.approx(width, rel=0.05)
        assert found["fwhm"][axis]["spread_um"] < 0.05 * width
