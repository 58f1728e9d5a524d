from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.sources import Selection, open_source
from isosr_pipeline.sources.slices import natural_key


@pytest.fixture
def named(tmp_path):
    """Make a folder of small slices with given names."""

    def make(*names):
        folder = tmp_path / f"folder{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for value, name in enumerate(names):
            tifffile.imwrite(folder / f"{name}.tif", np.full((4, 5), value, np.uint16))
        return folder

    return make


@pytest.mark.parametrize("missing", [None, "C1_Z004", "C0_Z000"])
@pytest.mark.parametrize("order", ["C{c}_Z{z:03}", "Z{z:03}_C{c}"])
def test_names_that_count_two_things_are_refused(named, missing, order):
    names = [(f"C{c}_Z{z:03}", order.format(c=c, z=z)) for c in range(2) for z in range(10)]
    folder = named(*(name for key, name in names if key != missing))
    with pytest.raises(InputError, match=r"2 numbers change .*: (C0 … C1|Z000 … Z009) and ") as e:
        open_source(folder)
    assert "Z000 … Z009" in str(e.value)
    assert "C0 … C1" in str(e.value)
    assert "--channel-pattern" in str(e.value)


def test_a_number_may_go_along_with_the_count(named):
    times = [1000, 1103, 1207, 1310, 1420, 1523]
    names = [f"Z{z:03}_{time}_pos{time % 7}" for z, time in enumerate(times)]
    source = open_source(named(*names))
    assert (source.read(0, Box.whole((6, 4, 5)))[:, 0, 0] == np.arange(6)).all()
    with pytest.raises(InputError, match=r"1 of the series .* missing: number 2;"):
        open_source(named(*names[:2], *names[3:]))


def test_times_in_names_are_no_gaps(named):
    for times in ((1000, 1103, 1207, 1310), (1000, 1103, 1207, 1310, 1414), (1, 7, 8, 20)):
        assert open_source(named(*(f"img_{time}" for time in times))).shape[1] == len(times)


def test_gaps_are_counted_without_listing_them(named):
    with pytest.raises(InputError, match=r"20240101119997 of .*: number 3, 4, 5, 6, 7, …; .*renam"):
        open_source(named("img_1", "img_2", "img_20240101120000"))
    with pytest.raises(InputError, match=r"2 of the series .* missing: number 30, 60;"):
        open_source(named(*(f"s{z}" for z in (0, 10, 20, 40, 50, 70, 80))))


def test_digits_that_are_no_numbers_are_letters(named):
    assert natural_key("1²2") == [(0, 0, ""), (1, 1, "1"), (0, 0, "²"), (1, 2, "2"), (0, 0, "")]
    assert open_source(named("1²1", "1²2", "1²3")).names[1] == "1²2.tif"


def test_hidden_files_and_folders_are_passed_over(named, tmp_path):
    folder = named("s0", "s1", "s2")
    for name in ("._s0.tif", ".s9.tif"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert open_source(folder).names == ("s0.tif", "s1.tif", "s2.tif")
    (tmp_path / ".Trashes").mkdir()
    source = open_source(tmp_path, Selection(channel_pattern="*"))
    assert source.channels == (folder.name,)


def test_one_damaged_slice_of_many_is_named(named):
    folder = named(*(f"s{z}" for z in range(300)))
    damaged = folder / "s150.tif"
    content = bytearray(damaged.read_bytes())
    with tifffile.TiffFile(damaged) as tif:
        entry = tif.pages[0].tags["Software"].offset
    content[entry + 8 : entry + 12] = (2**31 - 1).to_bytes(4, "little")
    damaged.write_bytes(content)
    logger = logging.getLogger("tifffile")
    before = (logger.propagate, list(logger.handlers))
    for _ in range(15):
        with pytest.raises(InputError, match=r"s150\.tif is cut short .* invalid value offset"):
            open_source(folder)
        assert (logger.propagate, logger.handlers) == before


def test_what_others_log_is_not_kept_back(named, caplog):
    folder = named("s0", "s1")
    open_source(folder)
    logging.getLogger("tifffile").error("of another file")
    assert "of another file" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "has a palette"),
        ({"photometric": "miniswhite"}, "white is zero"),
    ],
)
def test_slices_that_are_not_grey_values_are_refused(named, options, message):
    folder = named("s0", "s1", "s2")
    tifffile.imwrite(folder / "s1.tif", np.zeros((4, 5), np.uint8), **options)
    with pytest.raises(InputError, match=rf"s1\.tif .*{message}"):
        open_source(folder)
