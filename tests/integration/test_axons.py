"""The whole path on a real light-sheet volume: a folder of 303 slices of a cleared mouse brain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import tifffile
import yaozarrs
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image

from isosr_pipeline.store.volume import Volume

VOXEL_SIZE = (1.0, 1.0, 1.0)


def _isosr(*arguments: object) -> None:
    command = [sys.executable, "-m", "isosr_pipeline", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def results(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("axons")
    _isosr("convert", data / "axons_lightsheet", folder / "axons.zarr", "--voxel-size", "1,1,1")
    _isosr(
        *("train", folder / "axons.zarr", folder / "model", "--iterations", 8),
        *("--width", 4, "--crop", 48, "--planes", 4, "--device", "cpu", "--preview-every", 0),
    )
    _isosr("restore", folder / "axons.zarr", folder / "model", folder / "restored.zarr")
    return folder


@pytest.fixture(scope="module")
def slices(data) -> np.ndarray:
    return tifffile.imread(sorted((data / "axons_lightsheet").glob("*.tif")))


@pytest.mark.parametrize("name", ["axons.zarr", "restored.zarr"])
def test_stores_are_valid_and_alike(results, slices, name):
    path = results / name
    Image.from_zarr(zarr.open_group(path, mode="r"))
    yaozarrs.validate_zarr_store(str(path))
    volume = Volume(path)
    volume.require_complete()
    assert volume.shape == (1, *slices.shape)
    assert volume.dtype == slices.dtype
    assert volume.voxel_size == VOXEL_SIZE
    assert [a.shape[1] for a in volume.arrays] == [303, 152, 76]


def test_the_converted_volume_is_the_source_to_every_reader(results, slices):
    path = results / "axons.zarr"
    assert (zarr.open_array(path / "0")[0] == slices).all()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "0")}}
    assert (tensorstore.open(spec).result()[0].read().result() == slices).all()
    (node,) = Reader(parse_url(path))()
    assert (np.asarray(node.data[0][0]) == slices).all()
    window = Volume(path).window(0, (0.03, 99.97))
    assert [window.low, window.high] == pytest.approx(np.percentile(slices, [0.03, 99.97]))


def test_the_restored_volume_reads_in_other_programs(results, slices):
    path = results / "restored.zarr"
    (node,) = Reader(parse_url(path))()
    restored = np.asarray(node.data[0][0])
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "0")}}
    assert (tensorstore.open(spec).result()[0].read().result() == restored).all()
    # A few steps from the identity: the same specimen, not the same voxels.
    assert np.corrcoef(restored.ravel(), slices.ravel())[0, 1] > 0.9
    assert (restored != slices).any()
    assert restored.mean() == pytest.approx(slices.mean(), rel=0.2)


def test_provenance_leads_back_to_the_slices(results, data):
    steps = json.loads((results / "restored.zarr" / "zarr.json").read_text())["attributes"]["isosr"]
    assert [step["step"] for step in steps["history"]] == ["convert", "restore"]
    assert steps["history"][0]["source"] == str((data / "axons_lightsheet").resolve())
    assert steps["history"][1]["parameters"]["method"] == "ot-cyclegan"


def test_the_example_script_opens_it(results):
    script = Path(__file__).parents[2] / "examples" / "open_result.py"
    command = [sys.executable, str(script), str(results / "restored.zarr")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "shape (1, 303, 303, 303), dtype uint16" in shown
