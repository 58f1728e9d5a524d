from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.store.volume import Volume


def characters(value):
    return np.array([c.encode() for c in str(value)], "S1")


@pytest.fixture
def write(tmp_path):
    """Write an array (t, c, z, y, x) as Imaris does: padded to chunks, attributes as characters."""

    def make(image, *, padding=(3, 5, 7), name="volume.ims"):
        path = tmp_path / name
        z, y, x = image.shape[2:]
        with h5py.File(path, "w") as file:
            info = file.create_group("DataSetInfo/Image")
            for key, value in {
                **{"X": x, "Y": y, "Z": z, "Unit": "um"},
                **{"ExtMin0": -10, "ExtMax0": -10 + 0.5 * x, "ExtMin1": 0, "ExtMax1": 0.5 * y},
                **{"ExtMin2": 2.5, "ExtMax2": 2.5 + 2 * z},
            }.items():
                info.attrs[key] = characters(value)
            names = file.create_group("DataSetInfo/Channel 0")
            names.attrs["Name"] = characters("DAPI")
            for t, c in np.ndindex(*image.shape[:2]):
                level = "DataSet/ResolutionLevel 0"
                group = file.create_group(f"{level}/TimePoint {t}/Channel {c}")
                for key, value in {"X": x, "Y": y, "Z": z}.items():
                    group.attrs[f"ImageSize{key}"] = characters(value)
                padded = np.pad(image[t, c], [(0, n) for n in padding])
                group.create_dataset("Data", data=padded, chunks=(8, 16, 16), compression="gzip")
        return path

    return make


def test_padding_is_cut_and_voxel_size_found(write, noise):
    path = write(np.stack([noise, noise // 2])[None])
    source = pickle.loads(pickle.dumps(open_source(path)))  # noqa: S301 - as Dask sends it
    assert source.shape == (2, *noise.shape)
    assert source.dtype == np.uint16
    assert source.voxel_size == pytest.approx((2.0, 0.5, 0.5))
    assert source.channels == ("DAPI", "channel 1")
    assert (source.read(1, Box.whole(noise.shape)) == noise // 2).all()
    box = Box(Zyx(31, 40, 0), Zyx(40, 50, 45))
    assert (source.read(0, box) == noise[box.slices]).all()


def test_a_time_point_is_picked(write, noise):
    path = write(np.stack([noise, noise // 2, noise // 4])[:, None])
    with pytest.raises(InputError, match=r"a time series of 3 points; pick one with --time N"):
        open_source(path)
    source = open_source(path, Selection(time=2))
    assert source.selection.time == 2
    assert (source.read(0, Box.whole(noise.shape)) == noise // 4).all()
    with pytest.raises(InputError, match=r"has 3 time points, and --time 3 was asked"):
        open_source(path, Selection(time=3))


def test_unusable_files_are_refused(write, noise, tmp_path):
    path = write(noise[None, None])
    with pytest.raises(InputError, match="leave out ::raw"):
        open_source(f"{path}::raw")
    with h5py.File(path, "a") as file:
        del file["DataSetInfo/Image"].attrs["ExtMax2"]
    assert open_source(path).voxel_size is None
    with h5py.File(path, "a") as file:
        group = file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"]
        group.attrs["ImageSizeZ"] = characters(1000)
    with pytest.raises(InputError, match=r"image size z, y, x is \[1000\.0"):
        open_source(path)
    with h5py.File(path, "a") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"]
    with pytest.raises(InputError, match=r"no dataset 'DataSet/.*Channel 0/Data'"):
        open_source(path)
    with h5py.File(path, "a") as file:
        del file["DataSet"]
    with pytest.raises(InputError, match="no group 'DataSet/ResolutionLevel 0'"):
        open_source(path)
    old = tmp_path / "old.ims"
    old.write_bytes(b"II*\0 of Imaris 3")
    with pytest.raises(InputError, match=r"old\.ims can't be read as HDF5"):
        open_source(old)


def test_channels_must_be_alike(write, noise):
    path = write(np.stack([noise, noise])[None])
    with h5py.File(path, "a") as file:
        group = file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 1"]
        group.attrs["ImageSizeZ"] = characters(39)
    with pytest.raises(InputError, match=r"channel 1 is uint16 of shape \(39, 50, 45\)"):
        open_source(path)
    with h5py.File(path, "a") as file:
        group = file["DataSet/ResolutionLevel 0/TimePoint 0"]
        group.move("Channel 1", "Channel 2")
    with pytest.raises(InputError, match=r"Channel \[0, 2\], which don't count from 0"):
        open_source(path)


def test_convert(write, noise, cluster, tmp_path):
    path = write(np.stack([np.stack([noise, noise // 2]), np.stack([noise, noise // 5])]))
    settings = ConvertSettings(time=1, chunk=(16, 16, 16), shard=(32, 32, 32))
    convert(path, tmp_path / "out.zarr", settings, cluster)
    volume = Volume(tmp_path / "out.zarr")
    assert volume.voxel_size == pytest.approx((2.0, 0.5, 0.5))
    assert list(volume.channels) == ["DAPI", "channel 1"]
    assert (volume.read(1, Box.whole(noise.shape)) == noise // 5).all()
    assert volume.require_own().history[0].parameters["time"] == 1
