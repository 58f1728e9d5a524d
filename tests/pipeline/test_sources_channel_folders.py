from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.store.volume import Volume

ALL = Selection(channel_pattern="Ex_*")


@pytest.fixture
def folder(tmp_path, slices, noise):
    (tmp_path / "brain").mkdir()
    for name, divisor in (("Ex_488", 1), ("Ex_561", 2), ("Ex_1064", 3), ("logs", 4)):
        slices(noise // divisor, f"brain/{name}")
    return tmp_path / "brain"


def test_each_sub_folder_is_a_channel(folder, noise):
    source = pickle.loads(pickle.dumps(open_source(folder, ALL)))  # noqa: S301 - as Dask sends it
    assert source.shape == (3, *noise.shape)
    assert source.channels == ("Ex_488", "Ex_561", "Ex_1064")
    assert source.selection == ALL
    box = Box(Zyx(2, 3, 4), Zyx(39, 50, 40))
    for channel in range(3):
        assert (source.read(channel, box) == noise[box.slices] // (channel + 1)).all()


def test_bad_folders_are_refused_by_name(folder, noise):
    with pytest.raises(InputError, match=r"sub-folders \(Ex_1064, .*logs\) are the channels"):
        open_source(folder)
    with pytest.raises(InputError, match=r"matches --channel-pattern 'Em_\*'; it has Ex_488, Ex_5"):
        open_source(folder, Selection(channel_pattern="Em_*"))
    for pattern in ("../*", "..", "/etc/*"):
        with pytest.raises(InputError, match="without slashes"):
            open_source(folder, Selection(channel_pattern=pattern))
    (folder / "Ex_561" / "slice39.tif").unlink()
    with pytest.raises(InputError, match=r"Ex_561 is uint16 of shape \(39, 50, 45\), and Ex_488"):
        open_source(folder, ALL)
    for z in range(39):
        tifffile.imwrite(folder / "Ex_561" / f"slice{z}.tif", np.zeros((50, 45), np.uint8))
    tifffile.imwrite(folder / "Ex_561" / "slice39.tif", np.zeros((50, 45), np.uint8))
    with pytest.raises(InputError, match="Ex_561 is uint8"):
        open_source(folder, ALL)


def test_the_command_line_takes_it(isosr, folder, noise, capsys):
    out = folder.parent / "out.zarr"
    options = ["--channel-pattern", "Ex_*", "--voxel-size", "2,1,1", "--workers", 1]
    assert isosr("convert", folder, out, *options) == 0
    volume = Volume(out)
    assert list(volume.channels) == ["Ex_488", "Ex_561", "Ex_1064"]
    assert (volume.read(2, Box.whole(noise.shape)) == noise // 3).all()
    assert volume.require_own().history[0].parameters["channel_pattern"] == "Ex_*"
    assert isosr("convert", folder, out, "--channel-pattern", "*4", "--time", "-1") == 2
    assert "--time" in capsys.readouterr().err
