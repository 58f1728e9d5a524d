from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile

from isosr_pipeline.engine.filling import may_pass
from isosr_pipeline.errors import InputError, IsosrError, MissingInputError
from isosr_pipeline.geometry import Box
from isosr_pipeline.sources import open_source

STACK = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)


@contextmanager
def no_more_files():
    """Let this process open no more files, as on a node where too many are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stack_in(folder, kind):
    path = folder / f"stack.{kind}"
    if kind == "slices":
        path.mkdir()
        for z, plane in enumerate(STACK):
            tifffile.imwrite(path / f"s{z}.tif", plane)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["raw"] = STACK
    elif kind == "zarr":
        store = {"driver": "file", "path": f"{path}/"}
        spec = {"driver": "zarr", "kvstore": store}
        array = tensorstore.open(spec, create=True, dtype=tensorstore.uint8, shape=STACK.shape)
        array.result()[...] = STACK
    else:
        compression = "zlib" if kind == "zlib.tif" else None
        tifffile.imwrite(path, STACK, compression=compression, photometric="minisblack")
    return path


@pytest.mark.parametrize("kind", ["slices", "tif", "zlib.tif", "h5", "zarr"])
def test_a_passing_trouble_stays_one(tmp_path, kind):
    path = stack_in(tmp_path, kind)
    source = open_source(path)
    whole = Box.whole(STACK.shape)
    with no_more_files(), pytest.raises(OSError, match="Too many open files") as caught:
        source.read(0, whole)
    assert caught.value.errno == errno.EMFILE
    assert not isinstance(caught.value, IsosrError)
    assert may_pass(caught.value)
    assert (source.read(0, whole) == STACK).all()
    with no_more_files(), pytest.raises(InputError, match=r"too many files .* ulimit -n"):
        open_source(path)


@pytest.mark.parametrize("kind", ["tif", "zlib.tif", "h5"])
def test_a_file_that_has_gone_is_no_damaged_one(tmp_path, kind):
    path = stack_in(tmp_path, kind)
    source = open_source(path)
    path.unlink()
    with pytest.raises(MissingInputError, match=rf"stack\.{kind} is not there") as caught:
        source.read(0, Box.whole(STACK.shape))
    assert not may_pass(caught.value)


def test_a_file_cut_short_under_way_is_named(tmp_path):
    path = stack_in(tmp_path, "tif")
    source = open_source(path)
    path.write_bytes(path.read_bytes()[: source.offset + 50])
    with pytest.raises(InputError, match=r"stack\.tif is cut short: .*whole when it was opened"):
        source.read(0, Box.whole(STACK.shape))


@pytest.mark.parametrize(
    ("number", "expected", "message"),
    [
        (errno.EACCES, InputError, "may not be read .*Permission denied.*chmod"),
        (errno.ESTALE, OSError, "Stale file handle"),
        (errno.EIO, OSError, "Input/output error"),
    ],
)
def test_each_error_of_the_file_system_has_its_own_remedy(
    tmp_path, monkeypatch, number, expected, message
):
    # Root may read all, and a server can't be made to forget a file: here the library fails.
    path = stack_in(tmp_path, "slices")
    source = open_source(path)

    def fail(name):
        raise OSError(number, os.strerror(number), str(name))

    monkeypatch.setattr(tifffile, "TiffFile", fail)
    with pytest.raises(expected, match=message) as caught:
        source.read(0, Box.whole(STACK.shape))
    assert "damaged" not in str(caught.value)
    assert may_pass(caught.value) == (expected is OSError)
    with pytest.raises(InputError, match=r"s\d\.tif|stack\.slices"):
        open_source(path)
