from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from isosr_pipeline.blur.axial import estimate
from isosr_pipeline.blur.of_stores import COUNT, describe_blur
from isosr_pipeline.blur.power_spectra import SpectralGrid
from isosr_pipeline.blur.subvolumes import draw_subvolumes
from isosr_pipeline.drawing import INK
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.widths import FWHM_PER_SIGMA

TRUE = np.sqrt(3.6**2 - 1.2**2)
"""FWHM in µm of what makes the image of the truth."""


@pytest.fixture(scope="module")
def image():
    return simulate("beads", (128, 112, 96), Acquisition(z_step=3), seed=5).image


@pytest.fixture
def store(make_store, image):
    return make_store(image, voxel_size=(1.5, 0.5, 0.5)).path


def test_a_store_says_how_wide_its_blur_is(isosr, store, capsys):
    assert isosr("psf", store, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    width = found["estimate"]["width"]
    assert width["fwhm_um"] == pytest.approx(TRUE, rel=0.1)
    low, high = width["fwhm_um_interval"]
    assert low < width["fwhm_um"] < high < 1.15 * low
    assert width["fwhm_voxels"] == pytest.approx(width["fwhm_um"] / 0.5)
    assert width["sigma_um"] == pytest.approx(width["fwhm_um"] / FWHM_PER_SIGMA)
    assert found["subvolume"] == [21, 64, 64]
    assert found["voxel_size_um"] == 0.5
    assert found["foreground"]
    assert isosr("psf", store) == 0
    shown = capsys.readouterr().out
    for name in ("axial blur", "against x", "against y", "directions", "spread", "depth"):
        assert f"\n{name} " in shown


def test_a_store_gives_what_the_array_gives(store, image):
    found = describe_blur(store, seed=3)
    places = draw_subvolumes(Volume(store), 0, 64, COUNT, 3)
    grid = SpectralGrid(places.shape, places.step)
    spectra = [grid.spectrum(image[box.slices]) for box in places.boxes]
    blur = estimate(grid, spectra, places.depths)
    assert found.estimate.width.square_voxels == blur.lateral.value
    assert found.estimate.width.square_error_voxels == blur.lateral.error


def test_it_is_the_same_each_time_and_hangs_on_the_seed(store):
    assert describe_blur(store) == describe_blur(store)
    one, other = (describe_blur(store, seed=seed, count=4) for seed in (0, 1))
    assert one.estimate.width.square_voxels != other.estimate.width.square_voxels


def test_sub_volumes_lie_where_something_is_and_share_little(make_store):
    volume = np.full((64, 64, 256), 10, np.uint16)
    noise = np.random.default_rng(0)
    volume[:, :, 160:] = noise.poisson(500, (64, 64, 96))
    places = draw_subvolumes(make_store(volume), 0, 32, 24, 0)
    assert places.foreground
    assert sum(start.x + 32 > 160 for start in places.starts) > 0.7 * len(places.starts) == 0.7 * 24
    for i, one in enumerate(places.starts):
        for other in places.starts[:i]:
            assert max(abs(a - b) for a, b in zip(one, other, strict=True)) >= 16


def test_planes_that_are_closer_than_voxels(make_store):
    seen = Acquisition(lateral_fwhm_um=2.4, axial_fwhm_um=4.2)
    fine = simulate("beads", (128, 128, 128), seen, seed=5).image
    found = describe_blur(make_store(fine[:, ::2, ::2], voxel_size=(0.5, 1.0, 1.0)).path, edge=48)
    assert found.subvolume == (96, 48, 48)
    true = np.sqrt(4.2**2 - 2.4**2)
    assert found.estimate.width.fwhm_um == pytest.approx(true, rel=0.1)


def test_a_picture_shows_points_and_line(isosr, store, tmp_path, capsys):
    plot = tmp_path / "estimate.svg"
    assert isosr("psf", store, "--plot", plot) == 0
    drawn = ElementTree.parse(plot).getroot()  # noqa: S314 - written just now
    marks = [e for e in drawn.iter("{http://www.w3.org/2000/svg}use") if INK in e.get("style")]
    # The last one is the sample beside the name.
    heights = [float(mark.get("y")) for mark in marks[:-1]]
    assert len(heights) >= 4
    assert heights == sorted(heights)
    assert "sigma" in "".join(drawn.itertext())
    before = plot.read_text()
    assert isosr("psf", store, "--plot", plot) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert plot.read_text() == before
    assert isosr("psf", store, "--plot", plot, "--overwrite", "--count", 3) == 0
    assert plot.read_text() != before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_of_noise_alone_nothing_is_told(isosr, make_store, tmp_path, capsys):
    noise = np.random.default_rng(0).poisson(100, (64, 96, 96)).astype(np.uint16)
    path, plot = make_store(noise).path, tmp_path / "none.svg"
    assert isosr("psf", path, "--plot", plot) == 0
    shown = capsys.readouterr().out
    assert "nothing can be told" in shown
    assert "sigma" not in shown
    assert "nothing can be told" in plot.read_text()
    assert isosr("psf", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["estimate"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "kernel.tif"], "--out is for models"),
        (["--voxel-size", "1"], "--voxel-size is for models"),
        (["--plot", "estimate.png"], "suffix '.png'"),
        (["--plot", "no/such/estimate.svg"], "no folder"),
        (["--channel", "1"], "channels 0 to 0"),
        (["--edge", "16"], "--edge is 16"),
    ],
)
def test_what_is_refused_is_named(
    isosr, make_store, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    path = make_store(np.ones((40, 40, 40), np.uint16)).path
    assert isosr("psf", path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_volumes_that_do_not_do_are_refused(isosr, make_store, noise, capsys):
    thin = make_store(noise[:16])
    assert isosr("psf", thin.path) == 2
    error = capsys.readouterr().err
    assert str(thin.path) in error
    assert "along z" in error
    begun = make_store(noise)
    volume = Volume(begun.path, writable=True)
    volume.update(StoreAttributes(complete=False))
    assert isosr("psf", begun.path) == 2
    assert "not complete" in capsys.readouterr().err
    broken = np.ones((40, 40, 40), np.float32)
    broken[20] = np.nan
    assert isosr("psf", make_store(broken).path) == 2
    assert "NaN" in capsys.readouterr().err


def test_a_model_takes_no_options_of_volumes(isosr, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert isosr("psf", tmp_path / "model", "--plot", "estimate.svg") == 2
    assert "--plot is for volumes" in capsys.readouterr().err
    assert isosr("psf", tmp_path / "gone", "--plot", "estimate.svg") == 2
    assert "there is no such folder" in capsys.readouterr().err
