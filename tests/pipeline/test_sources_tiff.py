from __future__ import annotations

import itertools

import numpy as np
import pytest
import tifffile

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.steps.convert import convert

STACK = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_two_volumes_in_a_file_are_refused(tmp_path, compression):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for stack in (STACK, STACK // 2):
            writer.write(stack, metadata={"axes": "ZYX"}, compression=compression)
    with pytest.raises(InputError, match=r"two\.ome\.tif holds 2 images of axes ZYX .*own"):
        open_source(path)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "has a palette"),
        ({"photometric": "miniswhite"}, "white is zero"),
    ],
)
def test_what_is_not_grey_values_is_refused(tmp_path, options, message, contiguous):
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in STACK:
            writer.write(plane, contiguous=contiguous, metadata=None, **options)
    with pytest.raises(InputError, match=rf"odd\.tif .*{message}"):
        open_source(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_fewer_planes_than_the_metadata_tell_are_refused(tmp_path, compression, cluster):
    path, out = tmp_path / "short.ome.tif", tmp_path / "out.zarr"
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX"}, compression=compression)
    path.write_bytes(path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="5"'))
    with pytest.raises(InputError, match=r"short\.ome\.tif is (cut short|5 planes by its meta)"):
        convert(path, out, ConvertSettings(voxel_size=(1.0, 1.0, 1.0)), cluster)
    assert not out.exists()


@pytest.mark.parametrize("ending", [b"\0\0\0\0", b"\x08\0\0\0", b""])
def test_a_tiff_without_pages_is_refused(tmp_path, ending):
    path = tmp_path / "none.tif"
    path.write_bytes(b"II*\0" + ending)
    with pytest.raises(InputError, match=r"none\.tif can't be read as TIFF"):
        open_source(path)


@pytest.mark.parametrize("size", ["abc", "nan", "inf", "-1", ""])
def test_a_voxel_size_that_is_no_length_is_none(tmp_path, size):
    path = tmp_path / "odd.ome.tif"
    sizes = {f"PhysicalSize{axis}": 1.25 for axis in "ZYX"}
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert open_source(path).voxel_size == (1.25, 1.25, 1.25)
    # As long as what it replaces, so that nothing else moves.
    odd = f'PhysicalSizeZ="{size}"'.encode().ljust(len(b'PhysicalSizeZ="1.25"'))
    path.write_bytes(path.read_bytes().replace(b'PhysicalSizeZ="1.25"', odd))
    assert open_source(path).voxel_size is None
    path = tmp_path / "odd.tif"
    metadata = {"axes": "ZYX", "spacing": size, "unit": "um"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    assert open_source(path).voxel_size is None


@pytest.mark.parametrize("shape", list(itertools.product((1, 5), repeat=3)))
@pytest.mark.parametrize("options", [{}, {"ome": True, "metadata": {"axes": "ZYX"}}])
def test_axes_of_length_1_are_axes(tmp_path, shape, options):
    voxels = np.arange(1, 1 + np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / "thin.tif"
    tifffile.imwrite(path, voxels, photometric="minisblack", **options)
    source = open_source(path)
    assert source.shape == (1, *shape)
    assert (source.read(0, Box.whole(shape)) == voxels).all()


def test_damage_anywhere_in_the_directories_is_an_input_error(tmp_path):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack")
    content = path.read_bytes()
    for position in range(4, 300):
        for byte in (0, 255):
            path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            try:
                source = open_source(path)
                source.read(0, Box.whole(source.shape[1:]))
            except InputError as error:
                assert "damaged.tif" in str(error)  # noqa: PT017 - most bytes do no harm


@pytest.mark.parametrize("options", [{}, {"ome": True, "metadata": {"axes": "ZYX"}}])
def test_a_read_looks_only_at_the_directories_of_its_planes(tmp_path, options):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack", **options)
    source = open_source(path)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[1].offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = b"\xff\xff"
    path.write_bytes(content)
    assert (source.read(0, Box(Zyx(2, 1, 0), Zyx(3, 8, 9))) == STACK[2:, 1:]).all()
    with pytest.raises(InputError, match=r"pages\.tif .*page 1"):
        source.read(0, Box.whole(STACK.shape))


def test_a_volume_in_one_page_is_read(tmp_path, noise):
    path = tmp_path / "volumetric.tif"
    tifffile.imwrite(path, noise, volumetric=True, photometric="minisblack")
    source = open_source(path)
    assert source.shape == (1, *noise.shape)
    box = Box(Zyx(3, 4, 5), Zyx(30, 41, 40))
    assert (source.read(0, box) == noise[box.slices]).all()
