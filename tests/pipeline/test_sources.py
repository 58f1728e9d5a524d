from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.errors import InputError, MissingInputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.sources.calibration import micrometres
from isosr_pipeline.sources.slices import natural_key

IMAGEJ = {
    "imagej": True,
    "resolution": (2.0, 4.0),
    "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um"},
}
OME = {
    "ome": True,
    "metadata": {
        "axes": "ZYX",
        "PhysicalSizeZ": 2000.0,
        "PhysicalSizeZUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeX": 0.5,
    },
}
FLAVOURS = {
    "plain": {},
    "imagej": IMAGEJ,
    "ome": OME,
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "deflate": {"compression": "zlib", "rowsperstrip": 16},
    "lzw": {"compression": "lzw", "predictor": True},
    "zstd tiles": {"compression": "zstd", "tile": (32, 16)},
    "plain tiles": {"tile": (16, 32)},
}


@pytest.fixture(params=FLAVOURS)
def flavour(request, tmp_path, noise):
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, noise, **FLAVOURS[request.param])
    return path


@settings(max_examples=10)
@given(st.data())
def test_any_box_of_any_flavour_is_read(flavour, noise, data):
    source = pickle.loads(pickle.dumps(open_source(flavour)))  # noqa: S301 - as Dask sends it
    assert source.shape == (1, *noise.shape)
    assert source.dtype == noise.dtype
    ranges = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in noise.shape
    ]
    box = Box(Zyx(*(a for a, _ in ranges)), Zyx(*(b for _, b in ranges)))
    read = source.read(0, box)
    assert read.dtype == np.uint16
    assert (read == noise[box.slices]).all()


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.97])
def test_a_tiff_cut_short_is_named(flavour, fraction):
    content = flavour.read_bytes()
    flavour.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(InputError, match=r"volume\.tif is cut short or damaged|can't be read"):
        open_source(flavour)


def test_pages_written_one_by_one_are_z(tmp_path, noise):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in noise:
            writer.write(plane, contiguous=False, compression="zlib")
    source = open_source(path)
    assert source.shape == (1, *noise.shape)
    assert (source.read(0, Box.whole(noise.shape)) == noise).all()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_channels_are_kept_apart(tmp_path, noise, axes, compression):
    both = np.stack([noise, noise // 2], axis=axes.index("C"))
    path = tmp_path / "channels.tif"
    tifffile.imwrite(path, both, ome=True, metadata={"axes": axes}, compression=compression)
    source = open_source(path)
    assert source.shape == (2, *noise.shape)
    box = Box(Zyx(1, 2, 3), Zyx(30, 40, 45))
    assert (source.read(1, box) == noise[box.slices] // 2).all()


def test_voxel_sizes_are_read(tmp_path, noise):
    for name, options, expected in (
        ("imagej", IMAGEJ, (1.5, 0.25, 0.5)),
        ("ome", OME, (2.0, 0.25, 0.5)),
        ("plain", {}, None),
    ):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, noise, **options)
        size = open_source(path).voxel_size
        assert size == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize("unit", ["um", "µm", "μm", "micron", "\\u00B5m", "Micrometer"])
def test_all_spellings_of_the_micrometre(unit):
    assert micrometres(unit) == 1.0
    assert micrometres("pixel") is None


def test_time_series_and_colour_are_refused(tmp_path):
    series = np.zeros((3, 5, 32, 32), np.uint8)
    path = tmp_path / "time.tif"
    tifffile.imwrite(path, series, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="time series of 3 points; pick one with --time N"):
        open_source(path)
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, np.zeros((5, 32, 32, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="grey values"):
        open_source(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["TZCYX", "CTZYX", "TZYX", "TCYX"])
def test_a_time_point_is_picked(tmp_path, noise, axes, compression):
    lengths = dict(zip("TCZYX", (3, 2, *noise.shape), strict=True))
    shape = [lengths[axis] for axis in axes]
    series = np.random.default_rng(1).integers(0, 60000, shape, dtype=np.uint16)
    path = tmp_path / "series.tif"
    tifffile.imwrite(path, series, ome=True, metadata={"axes": axes}, compression=compression)
    source = pickle.loads(pickle.dumps(open_source(path, Selection(time=2))))  # noqa: S301
    assert source.selection == Selection(time=2)
    expected = series.take(2, axis=axes.index("T"))
    for channel in range(source.shape[0]):
        kept = axes.replace("T", "")
        volume = expected.take(channel, axis=kept.index("C")) if "C" in kept else expected
        volume = volume.reshape(source.shape[1:])
        box = Box(Zyx(0, 2, 3), Zyx(source.shape[1], 40, 45))
        assert (source.read(channel, box) == volume[box.slices]).all()
    with pytest.raises(InputError, match=r"has 3 time points, and --time 3 was asked"):
        open_source(path, Selection(time=3))


def test_options_that_mean_nothing_are_refused(tmp_path, slices, noise):
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, noise)
    folder = slices(noise)
    for location in (path, folder):
        with pytest.raises(InputError, match="1 time point, and --time 1 was asked"):
            open_source(location, Selection(time=1))
        with pytest.raises(InputError, match="for which ::raw means nothing"):
            open_source(f"{location}::raw")
    with pytest.raises(InputError, match="--channel-pattern means nothing"):
        open_source(path, Selection(channel_pattern="*"))
    (tmp_path / "a::b.tif").write_bytes(path.read_bytes())
    assert open_source(tmp_path / "a::b.tif").shape == (1, *noise.shape)


def test_slices_are_in_natural_order(slices, noise):
    folder = slices(noise)
    (folder / "notes.txt").write_text("not a slice")
    source = open_source(folder)
    assert source.names[:3] == ("slice0.tif", "slice1.tif", "slice2.tif")
    assert source.voxel_size is None
    box = Box(Zyx(2, 3, 4), Zyx(39, 50, 40))
    assert (source.read(0, box) == noise[box.slices]).all()
    assert sorted(["a10", "a9", "b1"], key=natural_key) == ["a9", "a10", "b1"]


def test_bad_folders_are_refused_by_name(slices, noise, tmp_path):
    with pytest.raises(MissingInputError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no TIFF slices"):
        open_source(tmp_path / "empty")
    for name, replacement in (("shape", noise[0, :-1]), ("dtype", noise[0].astype(np.uint8))):
        folder = slices(noise, name)
        tifffile.imwrite(folder / "slice7.tif", replacement)
        with pytest.raises(InputError, match=r"slice7\.tif is .* and the first slice"):
            open_source(folder)
    folder = slices(noise, "cut")
    content = (folder / "slice11.tif").read_bytes()
    (folder / "slice11.tif").write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"slice11\.tif is cut short"):
        open_source(folder)
    folder = slices(noise, "gap")
    (folder / "slice12.tif").unlink()
    with pytest.raises(InputError, match="number 12"):
        open_source(folder)


def test_a_slice_that_changes_under_way_is_named(slices, noise):
    folder = slices(noise)
    source = open_source(folder)
    tifffile.imwrite(folder / "slice5.tif", noise[0, :10])
    with pytest.raises(InputError, match=r"slice5\.tif is \(10, 45\) now"):
        source.read(0, Box.whole(noise.shape))
    (folder / "slice5.tif").unlink()
    with pytest.raises(InputError, match=r"slice5\.tif is not there"):
        source.read(0, Box.whole(noise.shape))


def test_damaged_compressed_data_is_named(tmp_path, noise):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, noise, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 500] = b"\0" * 500
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.tif: page 3 can't be decoded"):
        open_source(path).read(0, Box.whole(noise.shape))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "volume.nrrd"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"suffix '\.nrrd'"):
        open_source(path)
    path = tmp_path / "text.tif"
    path.write_text("this is no TIFF")
    with pytest.raises(InputError, match="can't be read as TIFF"):
        open_source(path)
    path = tmp_path / "double.tif"
    tifffile.imwrite(path, np.zeros((5, 8, 8)))
    with pytest.raises(InputError, match="float64"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "shape", "voxel_size"),
    [
        ("beads_confocal.tif", (1, 41, 150, 150), (0.125, 0.0225, 0.0225)),
        ("nucleus_confocal_widefield.tif", (2, 45, 130, 133), (0.499, 0.512, 0.512)),
        ("golgi_calibrated.tif", (1, 25, 137, 147), (0.388, 0.351, 0.351)),
        ("cells_brain", (1, 26, 1116, 627), None),
    ],
)
def test_real_files(data, name, shape, voxel_size):
    source = open_source(data / name)
    assert source.shape == shape
    assert source.voxel_size == (pytest.approx(voxel_size, abs=5e-4) if voxel_size else None)
    channel = shape[0] - 1
    if (data / name).is_dir():
        whole = tifffile.imread(sorted((data / name).glob("*.tif")))
    else:
        whole = tifffile.imread(data / name)
    whole = whole[:, channel] if whole.ndim == 4 else whole
    box = Box(Zyx(1, 2, 3), Zyx(*(n - 1 for n in shape[1:])))
    assert (source.read(channel, box) == whole[box.slices]).all()
