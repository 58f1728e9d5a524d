from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch

from isosr_models.deep_linear import DeepLinear3d
from isosr_models.model_folder import DESCRIPTION, read_description, save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.sources import open_source
from isosr_pipeline.steps.train import train
from isosr_pipeline.training.settings import OTCycleGANSettings

FWHM = (4.0, 3.0, 3.0)


def _blur() -> DeepLinear3d:
    """A blur whose first layer is a Gaussian, and whose others pass it on."""
    axes = np.meshgrid(*(np.arange(7) - 3,) * 3, indexing="ij")
    kernel = np.exp(-sum(4 * np.log(2) * (a / w) ** 2 for a, w in zip(axes, FWHM, strict=True)))
    blur = DeepLinear3d(4)
    with torch.no_grad():
        for layer in blur.layers:
            layer.weight.zero_()
            layer.weight[0, 0, *(n // 2 for n in layer.kernel_size)] = 1
        blur.layers[0].weight[0, 0] = torch.from_numpy(kernel / kernel.sum())
    return blur


def _save(folder, blur, voxel_size):
    save_model(
        folder,
        {"generator": UNet3d(4, residual=blur.residual), "blur": blur},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
        voxel_size=voxel_size,
    )
    return folder


@pytest.fixture
def model(tmp_path):
    return _save(tmp_path / "model", _blur(), 0.5)


def test_a_known_gaussian_comes_out_with_its_widths(isosr, model, capsys):
    assert isosr("psf", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    for axis, voxels in zip("zyx", FWHM, strict=True):
        assert found["fwhm"][axis]["um"] == pytest.approx(0.5 * voxels, rel=0.05)
        assert found["fwhm"][axis]["complete"]
    assert found["voxel_size_um"] == 0.5
    assert found["shape"] == [13, 13, 13]
    assert found["blur"] == "deep-linear"
    assert found["total"] == pytest.approx(1, abs=1e-5)
    assert found["negative"] == 0


@pytest.mark.parametrize("name", ["kernel.tif", "kernel.ome.tif"])
def test_the_kernel_is_a_tiff_with_its_voxel_size(isosr, model, tmp_path, name, capsys):
    out = tmp_path / name
    assert isosr("psf", model, "--out", out) == 0
    assert "FWHM z       2" in capsys.readouterr().out
    kernel = tifffile.imread(out)
    assert (kernel.shape, kernel.dtype) == ((13, 13, 13), np.float32)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (6, 6, 6)
    assert open_source(out).voxel_size == pytest.approx((0.5, 0.5, 0.5), rel=1e-4)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_file_that_exists_is_kept_unless_overwriting_is_asked_for(isosr, model, tmp_path, capsys):
    out = tmp_path / "kernel.tif"
    out.write_text("precious")
    assert isosr("psf", model, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert isosr("psf", model, "--out", out, "--overwrite") == 0
    assert tifffile.imread(out).shape == (13, 13, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "kernel.png"], "suffix '.png'"),
        (["--out", "no/such/kernel.tif"], "no folder"),
        (["--voxel-size", "0.7"], "trained on voxels of 0.5 µm and --voxel-size is 0.7"),
        (["--voxel-size", "nan"], "--voxel-size: voxels are nan µm"),
    ],
)
def test_what_is_refused_is_named(isosr, model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert isosr("psf", model, *arguments) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_model_is_refused(isosr, tmp_path, capsys):
    assert isosr("psf", tmp_path / "gone") == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_a_model_from_before_voxel_sizes_were_kept_needs_one(isosr, model, capsys):
    content = json.loads((model / DESCRIPTION).read_text())
    del content["voxel_size"]
    network = content.pop("network")
    first = {"format": 1, "width": network["width"], "residual": network["residual"]}
    (model / DESCRIPTION).write_text(json.dumps({**content, **first}))
    assert isosr("psf", model) == 2
    assert "--voxel-size" in capsys.readouterr().err
    assert isosr("psf", model, "--voxel-size", "2") == 0
    assert "FWHM z       8" in capsys.readouterr().out


def test_a_maximum_at_the_edge_of_the_kernel_says_more_than(isosr, tmp_path, capsys):
    blur = DeepLinear3d(4)
    with torch.no_grad():
        for layer in blur.layers:
            side = layer.kernel_size[0]
            layer.weight.zero_()
            # Convolutions of networks are correlations: the first weight shifts towards the end.
            layer.weight[0, 0, 0, side // 2, side // 2] = 1
    assert isosr("psf", _save(tmp_path / "shifted", blur, 2.0)) == 0
    shown = capsys.readouterr().out
    assert "FWHM z       more than 1 µm" in shown
    assert "FWHM y       2 µm" in shown


def test_a_unet_is_said_to_have_no_single_kernel(isosr, tmp_path, capsys):
    assert isosr("psf", _save(tmp_path / "unet", UNet3d(4, residual=True), 1.0)) == 0
    assert "no single kernel" in capsys.readouterr().out


def test_a_training_keeps_the_voxel_size_of_its_stores(make_store, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 999, (36, 36, 36), dtype=np.uint16)
    stores = [make_store(voxels, voxel_size=(2.0, size, size)).path for size in (1.5, 1.5)]
    small = OTCycleGANSettings(width=4, crop=(32, 32, 32), planes=1, iterations=1, device="cpu")
    train(stores, tmp_path / "trained", small)
    assert read_description(tmp_path / "trained").voxel_size == 1.5
