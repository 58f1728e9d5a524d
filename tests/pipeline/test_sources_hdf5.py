from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.store.volume import Volume

FLAVOURS = {
    "contiguous": {},
    "chunks": {"chunks": (7, 16, 16)},
    "gzip": {"chunks": (16, 16, 16), "compression": "gzip", "shuffle": True},
    "checksums": {"chunks": (16, 16, 16), "fletcher32": True},
    "big-endian": {"dtype": ">u2"},
}


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, (voxels, options) in datasets.items():
            file.create_dataset(name, data=voxels, **options)
    return path


@settings(max_examples=8)
@given(data=st.data())
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_any_box_of_any_flavour_is_read(tmp_path, noise, flavour, data):
    path = write(tmp_path / "volume.h5", raw=(noise, FLAVOURS[flavour]))
    source = pickle.loads(pickle.dumps(open_source(path)))  # noqa: S301 - as Dask sends it
    assert (source.shape, source.dtype) == ((1, *noise.shape), np.uint16)
    assert source.selection == Selection(array="raw")
    pairs = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in noise.shape
    ]
    box = Box(Zyx(*(a for a, _ in pairs)), Zyx(*(b for _, b in pairs)))
    read = source.read(0, box)
    assert read.dtype == np.dtype(np.uint16)
    assert (read == noise[box.slices]).all()


def test_channels_come_first_and_voxel_size_is_honoured(tmp_path, noise):
    path = write(tmp_path / "volume.hdf5", **{"deep/inside": (np.stack([noise, noise // 3]), {})})
    with h5py.File(path, "a") as file:
        file["deep/inside"].attrs["element_size_um"] = [0.5, 0.25, 0.125]
    source = open_source(path)
    assert source.shape == (2, *noise.shape)
    assert source.voxel_size == (0.5, 0.25, 0.125)
    assert source.selection.array == "deep/inside"
    assert (source.read(1, Box.whole(noise.shape)) == noise // 3).all()


@pytest.mark.parametrize("how", ["labels", "axistags"])
def test_named_axes_may_be_in_any_order(tmp_path, noise, how):
    series = np.stack([noise, noise // 2], axis=-1)[None].transpose(4, 3, 2, 1, 0)
    path = write(tmp_path / "volume.h5", raw=(series, {}))
    with h5py.File(path, "a") as file:
        if how == "labels":
            for dimension, label in zip(file["raw"].dims, "cxyzt", strict=True):
                dimension.label = label
        else:
            keys = ", ".join(f'{{"key": "{axis}"}}' for axis in "cxyzt")
            file["raw"].attrs["axistags"] = f'{{"axes": [{keys}]}}'
    source = open_source(path)
    assert source.shape == (2, *noise.shape)
    box = Box(Zyx(1, 2, 3), Zyx(9, 20, 30))
    assert (source.read(1, box) == noise[box.slices] // 2).all()


def test_many_threads_read_one_file(tmp_path, noise):
    path = write(tmp_path / "volume.h5", raw=(noise, FLAVOURS["gzip"]))
    source = open_source(path)
    boxes = [Box(Zyx(z, 0, 5), Zyx(z + 1, 50, 40)) for z in range(40)] * 3
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda box: source.read(0, box), boxes))
    assert all((p == noise[b.slices]).all() for p, b in zip(parts, boxes, strict=True))


def test_one_of_several_must_be_named(tmp_path, noise):
    names = [f"v{i:02}" for i in range(12)]
    path = write(
        tmp_path / "many.h5", notes=(np.arange(4), {}), **{name: (noise, {}) for name in names}
    )
    with pytest.raises(InputError, match=r"more than one .*: v00, v01, .*v09, …; write .*::v00"):
        open_source(path)
    assert open_source(f"{path}::/v07").selection.array == "v07"
    with pytest.raises(InputError, match=r"many\.h5 has no dataset 'raw'; it has notes, v00"):
        open_source(f"{path}::raw")
    with pytest.raises(InputError, match="holds no 3D or 4D dataset"):
        open_source(write(tmp_path / "flat.h5", plane=(noise[0], {})))


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"bad\.h5::raw has 2 axes"),
        (np.zeros((1, 1, 4, 5, 6), np.uint8), r"bad\.h5::raw has 5 axes"),
        (np.zeros((4, 5, 6)), "voxels are float64"),
        (np.zeros((4, 5, 6), np.complex64), "voxels are complex64"),
        (np.zeros((4, 5, 6), [("r", "u1"), ("g", "u1")]), "voxels are void"),
        (np.full((2, 2, 2), b"text", object), "voxels are object"),
        (np.zeros((0, 5, 6), np.uint8), "no voxels"),
    ],
    ids=["2D", "5D", "float64", "complex", "compound", "object", "empty"],
)
def test_what_is_no_volume_is_refused(tmp_path, voxels, message):
    options = {"dtype": h5py.string_dtype()} if voxels.dtype == object else {}
    path = write(tmp_path / "bad.h5", raw=(voxels, options))
    with pytest.raises(InputError, match=message):
        open_source(f"{path}::raw")


def test_damaged_files_are_named(tmp_path, noise):
    path = tmp_path / "text.h5"
    path.write_text("this is no HDF5")
    with pytest.raises(InputError, match=r"text\.h5 can't be read as HDF5"):
        open_source(path)
    path = write(tmp_path / "cut.h5", raw=(noise, {}))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cut\.h5 can't be read as HDF5 .*truncated"):
        open_source(path)
    path = write(tmp_path / "damaged.h5", raw=(noise, FLAVOURS["gzip"]))
    with h5py.File(path) as file:
        chunk = file["raw"].id.get_chunk_info(5)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(InputError, match=r"damaged\.h5::raw, z 0:40, y 0:50, x 0:45 can't be read"):
        source.read(0, Box.whole(noise.shape))


@settings(max_examples=150)
@given(damage=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1))
def test_damage_anywhere_is_an_error_that_names_the_file(tmp_path, noise, damage):
    path = tmp_path / "damaged.h5"
    content = bytearray(write(path, raw=(noise[:20, :20, :20], FLAVOURS["gzip"])).read_bytes())
    for position, value in damage:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        source = open_source(path)
        message = f"{source.read(0, Box(Zyx(0, 0, 0), Zyx(1, 1, 1)))} of {path}"
    except InputError as error:
        message = str(error)
    assert "damaged.h5" in message


def test_a_file_that_changes_under_way_is_named(tmp_path, noise):
    path = write(tmp_path / "volume.h5", raw=(noise, {}))
    source = open_source(path)
    write(path, raw=(noise[:10], {}))
    with pytest.raises(InputError, match=r"uint16 of shape \(10, 50, 45\) now, and was uint16"):
        source.read(0, Box.whole(noise.shape))
    path.unlink()
    with pytest.raises(InputError, match=r"volume\.h5 is not there"):
        source.read(0, Box.whole(noise.shape))


def test_nothing_leads_out_of_the_file(tmp_path, noise):
    write(tmp_path / "secret.h5", raw=(noise, {}))
    noise.tofile(tmp_path / "secret.bin")
    path = write(tmp_path / "volume.h5", raw=(noise, {}))
    layout = h5py.VirtualLayout(noise.shape, noise.dtype)
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "raw", noise.shape)
    with h5py.File(path, "a") as file:
        file["alias"] = h5py.SoftLink("/raw")
        file["group/near"] = h5py.SoftLink("../raw")
        file["group/beside"] = h5py.SoftLink("/alias")
        file["outside"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/raw")
        file["around"] = h5py.SoftLink("/outside")
        file["circle"] = h5py.SoftLink("/circle")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset(
            "bytes", noise.shape, noise.dtype, external=[(tmp_path / "secret.bin", 0, 180000)]
        )
    for name in ("outside", "around"):
        with pytest.raises(InputError, match="a link to another file"):
            open_source(f"{path}::{name}")
    with pytest.raises(InputError, match="leads to itself"):
        open_source(f"{path}::circle")
    for name in ("virtual", "bytes"):
        with pytest.raises(InputError, match="keeps its voxels in other files"):
            open_source(f"{path}::{name}")
    for name in ("alias", "group/beside"):
        source = open_source(f"{path}::{name}")
        assert (source.read(0, Box.whole(noise.shape)) == noise).all()


def test_an_unknown_filter_is_named(tmp_path, noise):
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((10, 10, 10))
        plan.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((20, 20, 20))
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, dcpl=plan)
    with pytest.raises(InputError, match=r"volume\.h5::raw is compressed with filter 32999"):
        open_source(path)


def test_hdf5_of_another_suffix_is_recognised(tmp_path, noise):
    path = write(tmp_path / "volume.mat", raw=(noise, {}))
    assert open_source(path).shape == (1, *noise.shape)


def test_a_real_file(data):
    with pytest.raises(InputError, match=r"more than one .*label, raw"):
        open_source(data / "plant_tissue.h5")
    source = open_source(f"{data}/plant_tissue.h5::raw")
    assert source.shape == (1, 100, 100, 100)
    assert source.dtype == np.uint8
    assert source.voxel_size == pytest.approx((0.284, 0.127, 0.127), abs=5e-4)


def test_a_real_file_is_converted(data, cluster, tmp_path):
    out = tmp_path / "out.zarr"
    settings = ConvertSettings(chunk=(32, 32, 32), shard=(64, 64, 64))
    convert(f"{data}/plant_tissue.h5::raw", out, settings, cluster)
    volume = Volume(out)
    assert volume.voxel_size == pytest.approx((0.284, 0.127, 0.127), abs=5e-4)
    with h5py.File(data / "plant_tissue.h5") as file:
        assert (volume.read(0, Box.whole((100, 100, 100))) == file["raw"][...]).all()
    (step,) = volume.require_own().history
    assert step.source.endswith("plant_tissue.h5")
    assert step.parameters["array"] == "raw"
    assert step.parameters["time"] is None
