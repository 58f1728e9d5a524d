from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image
from pydantic import ValidationError
from scipy import ndimage

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.processing import (
    CalibratedSource,
    DeskewedSource,
    IsotropicSource,
    MedianSource,
    processed,
)
from isosr_pipeline.settings import ConvertSettings, RestoreSettings
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.store.volume import Volume

ANGLES = (45.0, -45.0, 31.8)


class ArraySource:
    """An array (z, y, x) as a source that records what was read of it."""

    path = Path("array")
    channels = ("channel 0",)

    def __init__(self, voxels, voxel_size=None):
        self.voxels = voxels
        self.voxel_size = voxel_size
        self.shape = (1, *voxels.shape)
        self.dtype = voxels.dtype
        self.grain = Zyx(1, 1, voxels.shape[2])
        self.boxes = []

    def read(self, channel, box):
        assert channel == 0
        assert box.clipped(self.voxels.shape) == box
        assert min(box.shape) > 0
        self.boxes.append(box)
        return self.voxels[box.slices]


def source_of(voxels, voxel_size=(1.0, 1.0, 1.0)):
    return CalibratedSource(ArraySource(voxels), voxel_size)


def whole(source):
    return source.read(0, Box.whole(source.shape[1:]))


def draw_box(data, shape):
    ranges = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in shape
    ]
    return Box(Zyx(*(a for a, _ in ranges)), Zyx(*(b for _, b in ranges)))


SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
DTYPES = st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"])


def noise_of(shape, dtype):
    rng = np.random.default_rng(5)
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


@settings(max_examples=60)
@given(data=st.data(), shape=SHAPES, dtype=DTYPES, radius=st.integers(1, 4))
def test_median_of_any_box_is_that_of_the_whole_volume(data, shape, dtype, radius):
    voxels = noise_of(shape, dtype)
    source = MedianSource(source_of(voxels), radius)
    expected = np.stack(
        [ndimage.median_filter(plane, 2 * radius + 1, mode="reflect") for plane in voxels]
    )
    box = draw_box(data, shape)
    read = source.read(0, box)
    assert read.dtype == dtype
    assert (read == expected[box.slices]).all()


@settings(max_examples=120)
@given(
    data=st.data(),
    shape=SHAPES,
    dtype=DTYPES,
    angle=st.one_of(st.sampled_from(ANGLES), st.floats(10, 80), st.floats(-80, -10)),
    step=st.floats(0.3, 4),
    rotate=st.booleans(),
    median=st.sampled_from([None, 2]),
    isotropic=st.booleans(),
)
def test_any_processing_of_any_box_is_that_of_the_whole_volume(
    data, shape, dtype, angle, step, rotate, median, isotropic
):
    voxels = noise_of(shape, dtype)
    chosen = ConvertSettings(
        voxel_size=(step, 0.5, 0.5),
        deskew=angle,
        rotate=rotate,
        median=median,
        isotropic=isotropic,
    )
    inner = ArraySource(voxels)
    source = pickle.loads(pickle.dumps(processed(inner, chosen)))  # noqa: S301 - as Dask sends it
    assert source.dtype == dtype
    box = draw_box(data, source.shape[1:])
    read = source.read(0, box)
    assert read.dtype == dtype
    assert (read == whole(source)[box.slices]).all()
    acquired = source.acquired(box)
    assert acquired.shape == box.shape[:2]
    if not isotropic:
        assert not read[~acquired].any()


@pytest.mark.parametrize("angle", ANGLES)
def test_deskewing_is_a_linear_affine_transformation(angle):
    voxels = noise_of((30, 20, 4), "uint16")
    step, row = 0.9, 0.5
    source = DeskewedSource(source_of(voxels, (step, row, row)), angle, False)
    shift = np.sign(angle) * step * np.cos(np.radians(angle)) / row
    expected = ndimage.affine_transform(
        voxels.astype(float),
        [[1, 0, 0], [-shift, 1, 0], [0, 0, 1]],
        [0, source.origin[1] / row, 0],
        source.shape[1:],
        order=1,
        mode="constant",
    )
    assert np.abs(whole(source) - expected).max() <= 0.5 + 1e-2


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("step", [0.5, 0.9, 2.6])
def test_a_gradient_in_the_sample_stays_one_up_to_the_border(angle, step, rotate):
    size = (step, 0.5, 0.5)
    scan, depth, x = positions((30, 40, 5), size, angle)
    ramp = (1000 + 7 * scan + 11 * depth + 3 * x).astype(np.float32)
    source = DeskewedSource(source_of(ramp, size), angle, rotate)
    z, y, x = (
        origin + pitch * i
        for origin, pitch, i in zip(
            source.origin, source.voxel_size, np.indices(source.shape[1:]), strict=True
        )
    )
    along, across = to_sample(z, y, angle, rotate)
    cotangent = 1 / np.tan(np.radians(angle))
    acquired = (across >= -1e-6) & (across <= depth.max() + 1e-6)
    first_row = along - across * cotangent
    acquired &= (first_row >= -1e-6) & (first_row <= 29 * step + 1e-6)
    difference = np.abs(whole(source) - (1000 + 7 * along + 11 * across + 3 * x))
    assert difference[acquired].max() < 1e-2
    assert ((whole(source) > 0) == acquired).all()
    assert (source.acquired(Box.whole(source.shape[1:])) == acquired[:, :, 0]).all()


def to_sample(z, y, angle, rotate):
    """Return positions along and across the scan of positions in a deskewed volume, in µm."""
    if rotate:
        return y, -z
    sine, cosine = abs(np.sin(np.radians(angle))), np.sign(angle) * np.cos(np.radians(angle))
    return z * sine + y * cosine, y * sine - z * cosine


def positions(shape, voxel_size, angle):
    """Return where along the scan, across it and along x a tilted scan's voxels are, in µm."""
    k, j, i = np.indices(shape).astype(float)
    step, row, column = voxel_size
    radians = np.radians(angle)
    scan = k * step + np.sign(angle) * j * row * np.cos(radians)
    return scan, j * row * abs(np.sin(radians)), i * column


def acquire(angle, shape, voxel_size, objects):
    """Sample soft spheres ((scan, depth, x), radius) on the skewed grid of a tilted scan."""
    image = np.zeros(shape)
    for centre, radius in objects:
        distance = np.linalg.norm(
            [p - c for p, c in zip(positions(shape, voxel_size, angle), centre, strict=True)],
            axis=0,
        )
        image += 20000 / (1 + np.exp((distance - radius) / (0.1 * radius)))
    return np.rint(image).astype(np.uint16)


def moments(volume, origin, voxel_size):
    """Return the centre of mass in µm, and the standard deviations along the main axes."""
    places = np.stack(
        [
            o + s * np.arange(n)[(slice(None), *(None,) * (2 - axis))] + np.zeros(volume.shape)
            for axis, (o, s, n) in enumerate(zip(origin, voxel_size, volume.shape, strict=True))
        ]
    ).reshape(3, -1)
    weights = volume.ravel().astype(float)
    centre = (places * weights).sum(1) / weights.sum()
    offsets = places - centre[:, None]
    return centre, np.sqrt(np.linalg.eigvalsh((offsets * weights) @ offsets.T / weights.sum()))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("lateral", [0.5, 0.4])
def test_a_skewed_sphere_is_a_sphere_at_the_right_place(angle, rotate, lateral):
    shape, size = (110, 130, 70), (0.6, lateral, lateral)
    lean = np.sign(angle) * np.cos(np.radians(angle)) * lateral
    depth = abs(np.sin(np.radians(angle))) * lateral
    for j, k, radius in ((65, 55, 6.0), (100, 85, 2.0)):
        true = (k * size[0] + j * lean, j * depth, 31.3 * lateral)
        image = acquire(angle, shape, size, [(true, radius)])
        source = DeskewedSource(source_of(image, size), angle, rotate)
        volume = whole(source)
        (z, y, x), spread = moments(volume, source.origin, source.voxel_size)
        found = (*to_sample(z, y, angle, rotate), x)
        errors = np.abs(np.subtract(found, true)) / lateral
        assert errors.max() < 0.5
        assert spread.max() / spread.min() < 1.04
        raw = moments(image, (0, 0, 0), size)[1]
        assert raw.max() / raw.min() > 1.5


@settings(max_examples=80)
@given(
    planes=st.integers(1, 40),
    rows=st.integers(1, 40),
    step=st.floats(0.2, 5),
    angle=st.one_of(st.floats(5, 85), st.floats(-85, -5)),
    rotate=st.booleans(),
)
def test_the_output_covers_all_acquired_voxels_and_no_more(planes, rows, step, angle, rotate):
    source = DeskewedSource(
        source_of(np.ones((planes, rows, 1), np.uint8), (step, 1.0, 1.0)), angle, rotate
    )
    sine, cosine = abs(np.sin(np.radians(angle))), np.sign(angle) * np.cos(np.radians(angle))
    k, j = (c.ravel() for c in np.indices((planes, rows)))
    if rotate:
        places = np.stack([-j * sine, k * step + j * cosine])
    else:
        places = np.stack([k * step * sine, j + k * step * cosine])
    origin, size = np.array(source.origin[:2]), np.array(source.voxel_size[:2])
    last = origin + (np.array(source.shape[1:3]) - 1) * size
    for axis in range(2):
        assert origin[axis] <= places[axis].min() + 1e-5
        assert last[axis] >= places[axis].max() - 1e-5
        assert places[axis].min() - origin[axis] < size[axis]
        assert last[axis] - places[axis].max() < size[axis]


def test_what_was_not_acquired_is_zero_and_not_read():
    inner = ArraySource(np.full((20, 10, 3), 7, np.uint8))
    source = DeskewedSource(CalibratedSource(inner, (1.0, 1.0, 1.0)), 45.0, False)
    volume = whole(source)
    assert set(np.unique(volume)) == {0, 7}
    assert (volume == 7).sum() == pytest.approx(20 * 9.5 * 3, rel=0.05)
    inner.boxes.clear()
    assert not source.read(0, Box(Zyx(0, 12, 0), Zyx(2, 20, 3))).any()
    assert inner.boxes == []


@pytest.mark.parametrize("isotropic", [False, True])
def test_windows_are_those_of_acquired_voxels(cluster, tmp_path, isotropic):
    path, out = tmp_path / "skewed.tif", tmp_path / "out.zarr"
    image = np.random.default_rng(2).integers(1000, 2000, (80, 40, 20), dtype=np.uint16)
    tifffile.imwrite(path, image, photometric="minisblack")
    chosen = ConvertSettings(
        voxel_size=(2, 1, 1), deskew=45, isotropic=isotropic, chunk=(16,) * 3, shard=(32,) * 3
    )
    convert(path, out, chosen, cluster)
    volume = Volume(out)
    assert (volume.read(0, Box.whole(volume.shape[1:])) == 0).mean() > 0.5
    window = volume.window(0, (3.0, 97.0))
    assert 1000 < window.low < window.high < 2000


def test_a_small_box_reads_little():
    inner = ArraySource(np.zeros((500, 400, 30), np.uint8))
    for rotate in (False, True):
        source = DeskewedSource(
            MedianSource(CalibratedSource(inner, (1.0, 1.0, 1.0)), 2), 45.0, rotate
        )
        z, y = (n // 2 for n in source.shape[1:3])
        source.read(0, Box(Zyx(z, y, 0), Zyx(z + 16, y + 16, 16)))
    assert max(box.voxels for box in inner.boxes) < 45 * 35 * 20


def test_isotropic_voxels_are_those_of_the_view(make_store, noise):
    size = (2.7, 1.0, 1.0)
    source = IsotropicSource(source_of(noise, size))
    view = IsotropicView(make_store(noise, voxel_size=size))
    assert source.shape[1:] == view.shape
    assert source.voxel_size == (1.0, 1.0, 1.0)
    assert np.abs(whole(source) - view.read(0, Box.whole(view.shape))).max() <= 0.5


def test_nothing_asked_for_is_nothing_done(noise):
    source = processed(ArraySource(noise, (2.0, 1.0, 1.0)), ConvertSettings())
    assert source.voxel_size == (2.0, 1.0, 1.0)
    assert source.origin == (0.0, 0.0, 0.0)
    assert (whole(source) == noise).all()


@pytest.mark.parametrize(
    ("chosen", "size", "message"),
    [
        ({"deskew": 45}, None, "--voxel-size"),
        ({"isotropic": True}, None, "--voxel-size"),
        ({"isotropic": True}, (1.0, 2.0, 1.0), "2 µm along y and 1 µm along x.*--isotropic"),
        ({"deskew": 45, "rotate": True}, (1.0, 2.0, 1.0), "square for --rotate"),
    ],
)
def test_what_a_step_lacks_is_named(chosen, size, message):
    with pytest.raises(InputError, match=message):
        processed(ArraySource(np.zeros((3, 4, 5), np.uint8), size), ConvertSettings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rotate": True}, "needs deskew"),
        ({"deskew": 0}, "between 0 and 90"),
        ({"deskew": -90}, "between 0 and 90"),
        ({"deskew": float("nan")}, "finite number"),
        ({"median": 0}, "greater than 0"),
        ({"median": 65}, "less than or equal to 64"),
    ],
)
def test_bad_parameters_are_refused(chosen, message):
    with pytest.raises(ValidationError, match=message):
        ConvertSettings(**chosen)


@pytest.fixture
def skewed(tmp_path):
    size = (0.6, 0.5, 0.5)
    objects = [((35.0, 9.0, 10.0), 5.0), ((60.0, 16.0, 7.0), 2.0)]
    image = acquire(45.0, (100, 60, 40), size, objects)
    image[30, 30, 20] = 65535
    path = tmp_path / "skewed.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    return path, image, size


@pytest.mark.parametrize("options", [["--rotate"], ["--isotropic"]])
def test_regions_of_a_converted_scan_join(isosr, tmp_path, skewed, options):
    path, image, size = skewed
    out = tmp_path / "out.zarr"
    arguments = ["--deskew", 45, "--median", 2, *options, "--voxel-size", "0.6,0.5,0.5"]
    layout = ["--chunk", 16, "--shard", 32, "--workers", 2]
    assert isosr("convert", path, out, *arguments, *layout) == 0
    volume = Volume(out)
    chosen = {name.removeprefix("--"): True for name in options}
    source = processed(
        ArraySource(image), ConvertSettings(voxel_size=size, deskew=45, median=2, **chosen)
    )
    assert len(list(out.glob("0/c/*/*/*/*"))) > 8
    assert volume.shape == source.shape
    assert (volume.read(0, Box.whole(volume.shape[1:])) == whole(source)).all()
    assert volume.voxel_size == pytest.approx(source.voxel_size)
    assert volume.origin == pytest.approx(source.origin)
    made = volume.require_own().history[0].parameters
    assert (made["deskew"], made["median"]) == (45.0, 2)
    assert made["origin"] == pytest.approx(list(source.origin))


def test_the_origin_is_in_all_levels_and_kept_by_restore(cluster, tmp_path, skewed):
    path, _, size = skewed
    chosen = ConvertSettings(
        voxel_size=size, deskew=-45, rotate=True, chunk=(16, 16, 16), shard=(32, 32, 32)
    )
    out = tmp_path / "out.zarr"
    convert(path, out, chosen, cluster)
    volume = Volume(out)
    assert volume.origin[0] < -10
    assert volume.origin[1] < -10
    Image.from_zarr(zarr.open_group(out, mode="r"))
    datasets = zarr.open_group(out).attrs.asdict()["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) > 1
    for dataset in datasets:
        (_, *scale), (_, *translation) = (
            t[t["type"]] for t in dataset["coordinateTransformations"]
        )
        expected = np.array(volume.origin) + (np.array(scale) - volume.voxel_size) / 2
        assert translation == pytest.approx(list(expected))
    settings = RestoreSettings(chunk=(16, 16, 16), shard=(32, 32, 32), device="cpu")
    restore(out, "identity", tmp_path / "restored.zarr", settings, cluster)
    assert Volume(tmp_path / "restored.zarr").origin == pytest.approx(volume.origin)


def test_a_negative_angle_is_no_option_and_mistakes_exit_2(isosr, tmp_path, skewed, capsys):
    path, _, _ = skewed
    out = tmp_path / "out.zarr"
    size = ["--voxel-size", 1]
    assert isosr("convert", path, out, *size, "--rotate") == 2
    assert "--rotate: needs deskew" in capsys.readouterr().err
    assert isosr("convert", path, out, *size, "--deskew", 90) == 2
    assert "--deskew: give an angle" in capsys.readouterr().err
    assert not out.exists()
    assert isosr("convert", path, out, *size, "--deskew", -45, "--workers", 1) == 0
    assert Volume(out).origin[1] < 0
    assert isosr("info", out) == 0
    assert "origin" in capsys.readouterr().out


def test_isotropic_voxels_are_made_of_one_read():
    image = np.random.default_rng(2).integers(0, 900, (60, 20, 20)).astype(np.uint16)
    array = ArraySource(image)
    settings = ConvertSettings(voxel_size=(3.0, 1.0, 1.0), isotropic=True)
    source = processed(array, settings)
    expected = whole(source)
    array.boxes.clear()
    box = Box(Zyx(40, 0, 0), Zyx(150, 20, 20))
    assert (source.read(0, box) == expected[box.slices]).all()
    (once,) = array.boxes
    assert once.shape.z <= 110 / 3 + 4
    # Its planes are read one by one, which are three of the grid.
    assert source.grain == (3, 1, 20)
