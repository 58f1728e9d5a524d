"""Richardson-Lucy deconvolution as a method: models, restoration, brains and plans."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from scipy import ndimage

from isosr_models.model_folder import read_description
from isosr_pipeline.blur.deconvolution import deconvolution
from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import InputError, ResumeError
from isosr_pipeline.geometry import Box
from isosr_pipeline.settings import RestoreSettings
from isosr_pipeline.steps.plan import plan
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.tiffs import write_tiff
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.widths import FWHM_PER_SIGMA

AXIAL = RichardsonLucySettings(axial_fwhm=3.0, iterations=4)
BOTH = RichardsonLucySettings(axial_fwhm=3.0, lateral_fwhm=1.2, iterations=4)
SMALL = {"chunk": (16, 16, 16), "shard": (32, 32, 32), "device": "cpu"}
SHAPE = (40, 36, 34)


def spots(z_sigma, lateral_sigma=0.6):
    """Image points, the first of them alone, with a background of 50 counts."""
    points = np.zeros(SHAPE)
    points[20, 18, 17] = 40_000
    points[6, 5, 30] = points[30, 30, 5] = 20_000
    image = ndimage.gaussian_filter(points, (z_sigma, lateral_sigma, lateral_sigma))
    return np.random.default_rng(1).poisson(image + 50).astype(np.uint16)


@pytest.fixture
def volume(make_store):
    return make_store(spots(1.3))


def widths(values):
    """Return the standard deviation of the middle spot along each axis."""
    part = values[10:31, 11:26, 10:25].astype(float) - 50
    part[part < 0.02 * part.max()] = 0
    grids = np.indices(part.shape)
    means = [(g * part).sum() / part.sum() for g in grids]
    pairs = zip(grids, means, strict=True)
    return [float(np.sqrt(((g - m) ** 2 * part).sum() / part.sum())) for g, m in pairs]


@pytest.mark.parametrize(
    ("settings", "sharper_in_the_plane"),
    [
        (AXIAL, False),
        (BOTH, False),
        (BOTH.model_copy(update={"resolution": "full"}), True),
    ],
    ids=["axial", "lateral", "full"],
)
def test_what_gets_sharper_is_what_was_asked_for(
    cluster, volume, tmp_path, settings, sharper_in_the_plane
):
    train([volume.path], tmp_path / "model", settings)
    out = tmp_path / "out.zarr"
    restore(volume.path, str(tmp_path / "model"), out, RestoreSettings(**SMALL), cluster)
    restored = Volume(out)
    assert restored.dtype == np.uint16
    before, after = (widths(v.read(0, Box.whole(SHAPE))) for v in (volume, restored))
    assert after[0] < 0.85 * before[0]
    for axis in (1, 2):
        assert (after[axis] < 0.92 * before[axis]) == sharper_in_the_plane
    step = restored.require_own().history[-1].parameters
    known = read_description(tmp_path / "model")
    assert (step["method"], step["precision"]) == ("richardson-lucy", "32")
    assert (step["model_sha256"], step["halo"]) == (known.weights_sha256, max(known.network.reach))


def test_blocks_and_regions_change_nothing(cluster, make_store, tmp_path):
    volume = make_store(spots(1.3).astype(np.float32), voxel_size=(2.0, 1.0, 1.0))
    train([volume.path], tmp_path / "model", BOTH)
    results = []
    for name, block, shard in (("a", 17, 32), ("b", (80, 40, 24), 48)):
        cut = {"chunk": 16, "shard": shard, "block": block, "device": "cpu"}
        out = tmp_path / f"{name}.zarr"
        restore(volume.path, str(tmp_path / "model"), out, RestoreSettings(**cut), cluster)
        results.append(Volume(out).read(0, Box.whole(Volume(out).shape[1:])))
    low, high = (getattr(volume.window(0, (0.03, 99.97)), name) for name in ("low", "high"))
    assert np.abs(results[0] - results[1]).max() < 1e-5 * (high - low)


def test_a_model_is_written_once_and_known_by_its_psf(volume, tmp_path, make_store):
    psf, model = tmp_path / "psf.tif", tmp_path / "model"
    point = np.zeros((21, 19, 19))
    point[10, 9, 9] = 1
    kernel = ndimage.gaussian_filter(point, (2.6, 1.2, 1.2)).astype(np.float32)
    write_tiff(psf, kernel, (0.5, 0.5, 0.5))
    settings = RichardsonLucySettings(psf=psf, iterations=3)
    train([volume.path], model, settings)
    known = read_description(model)
    assert (known.method, known.voxel_size) == ("richardson-lucy", 1.0)
    run = known.training["run"]
    assert len(run["psf"]["sha256"]) == 64
    assert "crop" not in run
    # Of the file, 0.6 voxels of the volume wide along y and x.
    assert known.network.target == (7, 7, 7)
    train([volume.path], model, settings, if_exists="resume")
    write_tiff(psf, kernel + kernel.max(), (0.5, 0.5, 0.5))
    with pytest.raises(ResumeError, match="psf"):
        train([volume.path], model, settings, if_exists="resume")
    train([volume.path], model, settings, if_exists="overwrite")
    other = make_store(spots(1.3), voxel_size=(1.0, 1.1, 1.1))
    with pytest.raises(InputError, match="a model is of one microscope"):
        train([volume.path, other.path], tmp_path / "two", settings)
    assert not (tmp_path / "two").exists()


def test_a_psf_is_of_one_grid_and_computed_in_float32(cluster, volume, make_store, tmp_path):
    train([volume.path], tmp_path / "model", AXIAL)
    model, out = str(tmp_path / "model"), tmp_path / "out.zarr"
    other = make_store(spots(1.3), voxel_size=(1.0, 0.5, 0.5))
    with pytest.raises(InputError, match="PSF of the model is on voxels of 1 µm"):
        restore(other.path, model, out, RestoreSettings(**SMALL), cluster)
    with pytest.raises(InputError, match="computes in float32"):
        restore(volume.path, model, out, RestoreSettings(**SMALL, precision="bf16"), cluster)
    with pytest.raises(InputError, match="leave scheme"):
        restore(volume.path, model, out, RestoreSettings(**SMALL, scheme="paper"), cluster)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--axial-fwhm: richardson-lucy needs the PSF"),
        (["--axial-fwhm", 3, "--crop", 64], "--crop: richardson-lucy trains nothing"),
        (["--axial-fwhm", 3, "--width", 8], "--width: richardson-lucy has no such parameter"),
        (["--axial-fwhm", 1, "--lateral-fwhm", 2], "the PSF is longest along z"),
        (["--axial-fwhm", 3, "--psf", "p.tif"], "--psf: is given besides a width"),
        (["--axial-fwhm", 3, "--psf-voxel-size", 1], "--psf-voxel-size: is that of psf"),
        (["--axial-fwhm", 2000], "the PSF is 5.95e+03 µm long along z"),
        (["--axial-fwhm", 60, "--iterations", 500], "give fewer --iterations"),
        (["--psf", "gone.tif"], "gone.tif does not exist"),
    ],
)
def test_what_can_not_be_used_is_refused(isosr, volume, tmp_path, capsys, options, message):
    model = tmp_path / "model"
    assert isosr("train", volume.path, model, "--method", "richardson-lucy", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not model.exists()


def test_the_kernel_of_a_model_is_shown_and_written(isosr, volume, tmp_path, capsys):
    model = tmp_path / "model"
    chosen = ["--method", "richardson-lucy", "--axial-fwhm", 3, "--lateral-fwhm", 1.5]
    assert isosr("train", volume.path, model, *chosen) == 0
    assert "iterations need a halo of" in capsys.readouterr().err
    assert isosr("psf", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blur"] == "given"
    assert found["fwhm"]["z"]["um"] == pytest.approx(3, rel=0.05)


def test_gaussians_are_as_wide_as_asked_for():
    found = deconvolution(RichardsonLucySettings(axial_fwhm=6.0, lateral_fwhm=2.0), 0.5)
    for axis, width in enumerate((12.0, 4.0, 4.0)):
        profile = found.psf.double().sum(dim=[a for a in range(3) if a != axis]).numpy()
        places = np.arange(len(profile)) - len(profile) // 2
        assert np.sqrt((profile * places**2).sum()) * FWHM_PER_SIGMA == pytest.approx(width, 0.01)
    assert found.target.shape == (found.psf.shape[1],) * 3


def test_a_brain_is_planned_and_run_with_it(isosr, tmp_path, capsys, client, cluster, monkeypatch):
    write_tiff(tmp_path / "blurred.tif", spots(1.3), (1.0, 1.0, 1.0))
    psf = ndimage.gaussian_filter(np.eye(1, 19 * 11 * 11, 9 * 121 + 60).reshape(19, 11, 11), 1.0)
    write_tiff(tmp_path / "psf.tif", psf.astype(np.float32), (1.0, 1.0, 1.0))
    content = {
        "source": "blurred.tif",
        "output": "out",
        "convert": {"chunk": 16, "shard": 32},
        "train": {"method": "richardson-lucy", "psf": "psf.tif", "iterations": 3},
        "restore": {"chunk": 16, "shard": 32, "device": "cpu"},
    }
    path = tmp_path / "brain.yaml"
    path.write_text(yaml.safe_dump(content))
    for step in ("plan", "run"):
        name = f"isosr_pipeline.steps.{step}.cluster_for"
        monkeypatch.setattr(name, lambda *_, **__: cluster)
    before = plan(read_brain(path))
    assert before.train.crop is None
    assert "Richardson-Lucy, 3 iterations" in before.train.network
    assert before.restore.halo > 0
    assert before.restore.precision == "32"
    assert isosr("run", path) == 0
    known = read_description(tmp_path / "out" / "model")
    assert known.network.receptive_radius == before.restore.halo
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<summary>" in page
    assert f"weights: {known.weights_sha256[:12]}" in page
    summary = tmp_path / "out" / "trust.json"
    assert json.loads(summary.read_text())["map"] == str(tmp_path / "out" / "restored.trust.zarr")
    content["train"]["psf"] = "gone.tif"
    content["output"] = "other"
    path.write_text(yaml.safe_dump(content))
    assert isosr("run", path) == 2
    assert "gone.tif does not exist" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
