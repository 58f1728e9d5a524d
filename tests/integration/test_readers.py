"""What convert writes, opened by the libraries that others read it with."""

from __future__ import annotations

import dask.array
import ngff_zarr
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import tensorstore
import tifffile
import yaozarrs
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from isosr_pipeline.geometry import Zyx
from isosr_pipeline.store.pyramid import downsample

SHAPE = (2, 30, 300, 270)
FACTORS = [Zyx(1, 2, 2), Zyx(2, 2, 2)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two channels of 16 bits whose voxels are twice as long along z."""
    voxels = np.random.default_rng(5).gamma(2, 500, SHAPE).astype(np.uint16)
    path = tmp_path_factory.mktemp("source") / "two.ome.tif"
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 1.0}
    units = {f"{name}Unit": "µm" for name in sizes}
    tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "CZYX", **sizes, **units})
    return path, voxels


@pytest.fixture(params=["0.4", "0.5"])
def converted(request, isosr, tmp_path, source):
    """A store of each version, and what its levels must hold."""
    path, voxels = source
    out = tmp_path / "out.zarr"
    options = ["--chunk", "16,32,48", "--shard", "16,64,96", "--ngff", request.param]
    assert isosr("convert", path, out, *options, "--workers", 1) == 0
    levels = [voxels]
    for factors in FACTORS:
        levels.append(np.stack([downsample(channel, factors) for channel in levels[-1]]))
    return request.param, out, levels


def test_every_level_is_valid_and_the_same_for_all_readers(converted):
    version, out, levels = converted
    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    image = models.Image.from_zarr(zarr.open_group(out, mode="r"))
    attributes = image.attributes if version == "0.4" else image.attributes.ome
    assert len(attributes.multiscales[0].datasets) == len(levels)
    yaozarrs.validate_zarr_store(str(out))

    (node,) = Reader(parse_url(str(out)))()
    ngff = ngff_zarr.from_ngff_zarr(str(out), validate=True)
    assert len(node.data) == len(ngff.images) == len(levels)
    driver = "zarr" if version == "0.4" else "zarr3"
    for index, expected in enumerate(levels):
        folder = out / str(index)
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(folder)}}
        lazy = {
            "ome-zarr": node.data[index],
            "ngff-zarr": ngff.images[index].data,
            "dask": dask.array.from_zarr(str(folder)),
        }
        read = {
            # Not on the cluster of another test.
            **{name: array.compute(scheduler="synchronous") for name, array in lazy.items()},
            "tensorstore": tensorstore.open(spec, read=True).result().read().result(),
            "zarr": zarr.open_array(folder)[:],
        }
        for name, found in read.items():
            assert found.dtype == expected.dtype, name
            assert (found == expected).all(), name
        scale = ngff.images[index].scale
        assert scale["z"] == (1.0, 1.0, 2.0)[index]
        assert scale["x"] == scale["y"] == (0.5, 1.0, 2.0)[index]


def test_viewers_find_names_colours_and_a_range(converted, source):
    _, out, _ = converted
    attributes = zarr.open_group(out).attrs.asdict()
    channels = attributes.get("ome", attributes)["omero"]["channels"]
    for channel, voxels in zip(channels, source[1], strict=True):
        low, high = np.percentile(voxels, [0.03, 99.97])
        window = channel["window"]
        assert (window["start"], window["end"]) == pytest.approx((low, high))
        assert (window["min"], window["max"]) == (0, 65535)
        assert channel["label"]
    assert channels[0]["color"] != channels[1]["color"]


def test_version_04_is_zarr_2_with_a_file_a_chunk(converted):
    version, out, levels = converted
    array = zarr.open_array(out / "0")
    files = [p for p in (out / "0").rglob("*") if p.is_file() and not p.name.startswith(".")]
    if version == "0.4":
        assert (array.metadata.zarr_format, array.shards) == (2, None)
        assert len(files) == 2 * 2 * 10 * 6
        assert (out / "0" / "1" / "1" / "9" / "5").is_file()
    else:
        assert (array.metadata.zarr_format, array.shards) == (3, (1, 16, 64, 96))
        assert len(files) == 2 * 2 * 5 * 3 + 1
    assert array.chunks == (1, 16, 32, 48)
    assert array.shape == levels[0].shape
