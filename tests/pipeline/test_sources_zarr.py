from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorstore as ts
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.volume import Volume


def write_zarr(path, voxels, **options):
    array = zarr.create_array(path, data=voxels, **{"chunks": (16,) * voxels.ndim, **options})
    return array.store_path and path


def write_n5(path, voxels, attributes=None, **metadata):
    """Write an array with axes (c, z, y, x): N5's own order is the reverse."""
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {
            "dimensions": voxels.shape[::-1],
            "blockSize": (16,) * voxels.ndim,
            "dataType": voxels.dtype.name,
            "compression": {"type": "gzip"},
            **metadata,
        },
    }
    store = ts.open(spec, create=True).result()
    store[...].write(voxels.transpose()).result()
    add_attributes(path / "attributes.json", attributes or {})
    return path


def add_attributes(path, attributes):
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **attributes}))


def write_ome(path, image, axes, *, version="0.5", unit="micrometer", levels=2, labels=()):
    """Write an OME-Zarr image as another program would."""
    types = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": types[a]} if a in types else {"name": a, "type": "space", "unit": unit}
        for a in axes
    ]
    if unit is None:
        described = [{k: v for k, v in axis.items() if k != "unit"} for axis in described]
    sizes = {"z": 4.0, "y": 0.5, "x": 0.25}
    multiscale = {
        "axes": described,
        "datasets": [
            {
                "path": f"scale{i}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [sizes.get(a, 1.0) * 2**i for a in axes]}
                ],
            }
            for i in range(levels)
        ],
        "coordinateTransformations": [
            {"type": "scale", "scale": [0.5 if a in sizes else 1.0 for a in axes]}
        ],
    }
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    content = {"multiscales": [multiscale], "omero": {"channels": [{"label": n} for n in labels]}}
    group.attrs.put({"ome": {"version": "0.5", **content}} if version == "0.5" else content)
    for i in range(levels):
        step = tuple(slice(None, None, 2**i) for _ in axes)
        group.create_array(f"scale{i}", data=image[step], chunks=(1,) * (len(axes) - 3) + (16,) * 3)
    return path


MARKS = ("attributes.json", ".zarray", ".zattrs", "zarr.json")
ZARRS = {
    "v3": {},
    "v3 shards": {"shards": (32, 32, 32)},
    "v3 raw": {"compressors": None},
    "v2": {"zarr_format": 2},
    "v2 nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2 Fortran": {"zarr_format": 2, "order": "F"},
}
N5S = {
    "n5 gzip": {},
    "n5 raw": {"compression": {"type": "raw"}},
    "n5 xz": {"compression": {"type": "xz"}},
    "n5 blosc": {
        "compression": {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    },
}


@pytest.fixture(params=[*ZARRS, *N5S])
def container(request, tmp_path, noise):
    if request.param in N5S:
        return write_n5(tmp_path / "volume.n5", noise, **N5S[request.param])
    return write_zarr(tmp_path / "volume.zarr", noise, **ZARRS[request.param])


@settings(max_examples=8)
@given(st.data())
def test_any_box_of_any_flavour_is_read(container, noise, data):
    source = pickle.loads(pickle.dumps(open_source(container)))  # noqa: S301 - as Dask sends it
    assert (source.shape, source.dtype) == ((1, *noise.shape), np.uint16)
    pairs = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in noise.shape
    ]
    box = Box(Zyx(*(a for a, _ in pairs)), Zyx(*(b for _, b in pairs)))
    read = source.read(0, box)
    assert read.dtype == np.uint16
    assert (read == noise[box.slices]).all()


def test_damaged_chunks_are_named(container, noise):
    source = open_source(container)
    chunks = [p for p in container.rglob("*") if p.is_file() and p.name not in MARKS]
    for chunk in chunks:
        chunk.write_bytes(b"\xff" * 7)
    with pytest.raises(InputError, match=r"volume\.\w+, z 0:40, y 0:50, x 0:45 can't be read"):
        source.read(0, Box.whole(noise.shape))


def test_metadata_that_change_under_way_are_named(container, noise):
    source = open_source(container)
    (mark,) = (container / n for n in source_marks(source) if (container / n).exists())
    content = json.loads(mark.read_text())
    key = "dimensions" if source.driver == "n5" else "shape"
    content[key] = [20, 20, 20]
    mark.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"of shape \(20, 20, 20\) now"):
        source.read(0, Box(Zyx(0, 0, 0), Zyx(5, 5, 5)))
    mark.write_text(json.dumps(content)[:-20])
    with pytest.raises(InputError, match="can't be opened"):
        source.read(0, Box.whole(noise.shape))
    with pytest.raises(InputError, match="metadata can't be read"):
        open_source(container)


def source_marks(source):
    return {"n5": ["attributes.json"], "zarr": [".zarray"], "zarr3": ["zarr.json"]}[source.driver]


def test_many_threads_read_one_array(container, noise):
    source = open_source(container)
    boxes = [Box(Zyx(z, 0, 5), Zyx(z + 1, 50, 40)) for z in range(40)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda box: source.read(0, box), boxes))
    assert all((p == noise[b.slices]).all() for p, b in zip(parts, boxes, strict=True))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tzyx", "tczyx", "zcyx"])
def test_ome_zarr_axes_and_levels(tmp_path, noise, axes, version):
    lengths = {"t": 3, "c": 2}
    counts = np.arange(1, 1 + np.prod([lengths.get(a, 1) for a in axes]))
    grid = counts.reshape([lengths.get(a, 1) for a in axes])
    order = [a for a in axes if a in "zyx"]
    image = noise.transpose(["zyx".index(a) for a in order])
    image = image.reshape(
        [n for a in axes for n in ([noise.shape["zyx".index(a)]] if a in order else [1])]
    )
    image = (image // grid).astype(np.uint16)
    path = write_ome(tmp_path / "image.zarr", image, axes, version=version, labels=("A", "B"))
    channels = 2 if "c" in axes else 1
    if "t" in axes:
        with pytest.raises(InputError, match="time series of 3 points; pick one with --time N"):
            open_source(path)
    time = 1 if "t" in axes else None
    source = pickle.loads(pickle.dumps(open_source(path, Selection(time=time))))  # noqa: S301
    assert source.selection == Selection(array="scale0", time=time)
    assert source.shape == (channels, *noise.shape)
    assert source.voxel_size == (2.0, 0.25, 0.125)
    assert source.channels == (("A", "B") if channels == 2 else ("channel 0",))
    index = {"t": 1, "c": channels - 1}
    divisor = grid[tuple(index.get(a, 0) for a in axes)]
    box = Box(Zyx(3, 5, 7), Zyx(39, 50, 40))
    assert (source.read(channels - 1, box) == noise[box.slices] // divisor).all()
    coarse = open_source(f"{path}::scale1", Selection(time=0 if "t" in axes else None))
    assert coarse.voxel_size == (4.0, 0.5, 0.25)
    assert coarse.shape[1:] == (20, 25, 23)
    same = open_source(path / "scale1", Selection(time=0 if "t" in axes else None))
    assert (same.path, same.selection, same.voxel_size) == (
        path,
        coarse.selection,
        (4.0, 0.5, 0.25),
    )


def test_units_of_ome_zarr(tmp_path, noise):
    for unit, expected in (("nanometer", 2e-3), ("millimeter", 2e3), (None, None), ("foot", None)):
        path = write_ome(tmp_path / f"{unit}.zarr", noise, "zyx", unit=unit)
        size = open_source(path).voxel_size
        assert (size[0] if size else None) == expected


def test_one_of_several_must_be_named(tmp_path, noise):
    path = tmp_path / "many.zarr"
    zarr.create_group(path)
    for i in range(12):
        write_zarr(path / f"group/v{i}", noise[:4])
    write_zarr(path / "plane", noise[0])
    with pytest.raises(
        InputError, match=r"more than one .*: group/v0, group/v1, group/v2, .*v9, …"
    ):
        open_source(path)
    source = open_source(f"{path}::group/v10")
    assert source.selection.array == "group/v10"
    with pytest.raises(InputError, match=r"has no array 'raw'; it has group/v0"):
        open_source(f"{path}::raw")
    with pytest.raises(InputError, match=r"many\.zarr::plane has 2 axes"):
        open_source(f"{path}::plane")
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match="holds no 3D or 4D array"):
        open_source(tmp_path / "empty.zarr")
    write_ome(tmp_path / "series.zarr" / "0", noise, "zyx")
    assert open_source(tmp_path / "series.zarr").selection.array == "0/scale0"
    assert open_source(f"{tmp_path}/series.zarr::0").voxel_size == (2.0, 0.25, 0.125)


def test_dimension_names_and_element_size_of_plain_zarr(tmp_path, noise):
    path = write_zarr(
        tmp_path / "named.zarr",
        np.stack([noise, noise // 2], axis=1),
        chunks=(8, 1, 16, 16),
        dimension_names=("z", "c", "y", "x"),
        attributes={"element_size_um": [3, 2, 1]},
    )
    source = open_source(path)
    assert source.shape == (2, *noise.shape)
    assert source.voxel_size == (3.0, 2.0, 1.0)
    assert (source.read(1, Box.whole(noise.shape)) == noise // 2).all()


@pytest.mark.parametrize(
    ("root", "own", "expected"),
    [
        ({}, {}, None),
        ({}, {"pixelResolution": [0.5, 1, 2]}, (2, 1, 0.5)),
        ({}, {"pixelResolution": {"dimensions": [500, 1000, 2000], "unit": "nm"}}, (2, 1, 0.5)),
        ({}, {"resolution": [0.5, 1, 2], "downsamplingFactors": [2, 2, 1]}, (2, 2, 1)),
        ({"resolution": [0.5, 1, 2]}, {"downsamplingFactors": [4, 2, 1]}, (2, 2, 2)),
        ({"pixelResolution": {"dimensions": [9, 9, 9], "unit": "nm"}}, {"resolution": [500, 1, 2]},
         (2e-3, 1e-3, 0.5)),
        ({"units": ["mm", "mm", "mm"]}, {"resolution": [1, 1, 1]}, (1e3, 1e3, 1e3)),
        ({}, {"resolution": [1, 1, 1], "unit": "pixel"}, None),
        ({}, {"resolution": [1, -1, 1]}, None),
        ({}, {"pixelResolution": "fine"}, None),
    ],
)  # fmt: skip
def test_voxel_size_of_n5(tmp_path, noise, root, own, expected):
    path = tmp_path / "volume.n5"
    write_n5(path / "c0/s0", noise, own)
    add_attributes(path / "attributes.json", {"n5": "2.0.0", **root})
    source = open_source(path)
    assert source.selection.array == "c0/s0"
    assert source.voxel_size == (pytest.approx(expected) if expected else None)


def test_channels_of_n5_come_first(tmp_path, noise):
    path = write_n5(tmp_path / "volume.n5", np.stack([noise, noise // 2]))
    source = open_source(path)
    assert source.shape == (2, *noise.shape)
    assert (source.read(1, Box.whole(noise.shape)) == noise // 2).all()


def test_nothing_leads_out_of_the_container(tmp_path, noise):
    write_zarr(tmp_path / "secret.zarr", noise)
    path = write_ome(tmp_path / "image.zarr", noise, "zyx")
    (path / "away").symlink_to(tmp_path / "secret.zarr")
    for name in ("../secret.zarr", "away", "scale0/../../secret.zarr"):
        with pytest.raises(InputError, match="leads out of the container"):
            open_source(f"{path}::{name}")
    with pytest.raises(InputError, match="has no array"):
        open_source(f"{path}::{tmp_path}/secret.zarr")
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../secret.zarr"
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="leads out of the store"):
        open_source(path)


@pytest.mark.parametrize("dtype", ["float64", "bool", "uint32", "complex64", "|O"])
def test_unsupported_dtypes_are_refused(tmp_path, dtype):
    path = write_zarr(tmp_path / "bad.zarr", np.zeros((4, 5, 6), np.uint8), zarr_format=2)
    add_attributes(
        path / ".zarray",
        {
            "dtype": "|O" if dtype == "|O" else np.dtype(dtype).str,
            "fill_value": 0,
            "filters": [{"id": "pickle"}] if dtype == "|O" else None,
        },
    )
    with pytest.raises(InputError, match=r"bad\.zarr"):
        open_source(path)


JUNK = [None, 0, -1, float("inf"), 2**70, "x", "..", [], {}, [None], [{}], {"a": 1}]


def places(value, place=()):
    """Yield the way to everything in JSON."""
    if place:
        yield place
    items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else items:
        yield from places(inner, (*place, key))


@pytest.mark.parametrize("version", ["0.4", "0.5", "n5"])
@settings(max_examples=100)
@given(data=st.data())
def test_nonsense_in_metadata_is_an_error_that_names_the_container(tmp_path, noise, version, data):
    path = tmp_path / f"image.{'n5' if version == 'n5' else 'zarr'}"
    if path.exists():
        pass
    elif version == "n5":
        write_n5(path, noise[:4], {"pixelResolution": {"dimensions": [1, 2, 3], "unit": "um"}})
    else:
        write_ome(path, noise[None, :4], "czyx", version=version)
    marks = sorted(p for p in path.rglob("*") if p.name in MARKS and len(p.read_text()) > 20)
    mark = data.draw(st.sampled_from(marks))
    text = mark.read_text()
    content = json.loads(text)
    *way, last = data.draw(st.sampled_from(list(places(content))))
    inner = content
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(st.sampled_from(JUNK))
    mark.write_text(json.dumps(content))
    try:
        message = f"{open_source(path).read(0, Box(Zyx(0, 0, 0), Zyx(1, 1, 1)))} of {path}"
    except InputError as error:
        message = str(error)
    finally:
        mark.write_text(text)
    assert path.name in message


def test_stores_that_are_cut_short_are_refused(tmp_path, noise, make_store):
    path = write_ome(tmp_path / "image.zarr", noise, "zyx")
    (path / "scale0" / "zarr.json").unlink()
    with pytest.raises(InputError, match="no array 'scale0', which its metadata name as a level"):
        open_source(path)
    volume = make_store(noise)
    assert open_source(volume.path).voxel_size == (1.0, 1.0, 1.0)
    writable = Volume(volume.path, writable=True)
    writable.update(StoreAttributes(complete=False, windows=writable.require_own().windows))
    with pytest.raises(InputError, match="is not complete"):
        open_source(volume.path)


def test_a_real_n5(data):
    for location in (f"{data}/brain_cells.n5::lowres", data / "brain_cells.n5"):
        source = open_source(location)
        assert source.shape == (1, 149, 241, 456)
        assert source.dtype == np.uint16
        assert source.voxel_size == pytest.approx((1.68, 1.84, 1.84))
        assert source.selection.array == "lowres"


def test_a_real_n5_is_converted(data, cluster, tmp_path):
    settings = ConvertSettings(shard=(128, 128, 256))
    convert(f"{data}/brain_cells.n5::lowres", tmp_path / "out.zarr", settings, cluster)
    volume = Volume(tmp_path / "out.zarr")
    assert volume.voxel_size == pytest.approx((1.68, 1.84, 1.84))
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{data}/brain_cells.n5/lowres/"}}
    expected = ts.open(spec, read=True).result().read().result().transpose()
    assert (volume.read(0, Box.whole(expected.shape)) == expected).all()
    (step,) = volume.require_own().history
    assert step.parameters["array"] == "lowres"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_is_converted(tmp_path, noise, cluster, version):
    image = np.stack([np.stack([noise, noise // 2]), np.stack([noise // 3, noise // 4])])
    path = write_ome(tmp_path / "image.zarr", image, "tczyx", version=version, labels=("A", "B"))
    settings = ConvertSettings(time=1, chunk=(16, 16, 16), shard=(32, 32, 32))
    convert(path, tmp_path / "out.zarr", settings, cluster)
    volume = Volume(tmp_path / "out.zarr")
    assert list(volume.channels) == ["A", "B"]
    assert (volume.read(1, Box.whole(noise.shape)) == noise // 4).all()
    parameters = volume.require_own().history[0].parameters
    assert (parameters["array"], parameters["time"]) == ("scale0", 1)
