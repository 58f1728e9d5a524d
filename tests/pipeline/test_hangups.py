"""A terminal that closes while a command runs in it: what is done is kept."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

from isosr_pipeline.errors import IsosrError
from isosr_pipeline.store.volume import Volume

IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes the terminal that a process has for its input that of its session, as a login does."""


@pytest.fixture
def convert(tmp_path, hangups) -> list[str]:
    """A conversion of many regions."""
    voxels = np.random.default_rng(0).integers(0, 60000, (96, 96, 96), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", voxels, compression="zlib")
    command = ["-m", "isosr_pipeline", "convert", "a.tif", "a.zarr", "--workers", "1"]
    return [*command, "--voxel-size", "1", "--chunk", "16", "--shard", "16"]


Begun = tuple[subprocess.Popen, int, Callable[[], None]]
"""A command, what it can be read from, and what ends whoever reads that."""


def in_a_terminal(command: list[str], folder: Path) -> Begun:
    """Start a command in a terminal, which can be closed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=folder,
    )
    os.close(theirs)
    return process, ours, lambda: os.close(ours)


def before_tee(command: list[str], folder: Path) -> Begun:
    """Start a command as before ``| tee``, in a terminal that can be closed."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=folder,
    )
    os.close(theirs)

    def close() -> None:
        os.close(ours)
        os.killpg(process.pid, signal.SIGHUP)

    return process, ours, close


@pytest.mark.parametrize("begin", [in_a_terminal, before_tee])
def test_a_command_whose_terminal_closes_saves_and_can_be_resumed(convert, tmp_path, begin):
    process, said, close = begin(convert, tmp_path)
    os.set_blocking(said, False)
    try:
        while not list(tmp_path.glob("a.zarr/0/c/**/[0-9]")):
            assert process.poll() is None
            with suppress(BlockingIOError):
                os.read(said, 2**16)
            time.sleep(0.02)
        close()
        assert process.wait(60) == 75
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with pytest.raises(IsosrError, match="--resume"):
        Volume(tmp_path / "a.zarr").require_complete()
