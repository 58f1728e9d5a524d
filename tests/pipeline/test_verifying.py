"""Files that are damaged between being written and being recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from isosr_pipeline.engine import verifying
from isosr_pipeline.engine.output import begin_output
from isosr_pipeline.engine.regions import RegionPlan, RegionWriter
from isosr_pipeline.errors import IsosrError, WorkFailedError
from isosr_pipeline.geometry import Region, Zyx
from isosr_pipeline.processing import processed
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.settings import ConvertSettings
from isosr_pipeline.sources import open_source
from isosr_pipeline.steps.convert import ConvertRegion, plan_volume
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import Provenance, StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.store.written import read_back

SHARD = Zyx(32, 64, 64)
Damage = Callable[[Path], object]


def spec_of(dtype: str = "uint16", ngff: str = "0.5") -> VolumeSpec:
    shape = (1, 64, 100, 130)
    size = (1.0, 1.0, 1.0)
    return VolumeSpec(shape, np.dtype(dtype), size, Zyx(16, 16, 16), SHARD, ("a",), ngff=ngff)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    begin = int(where * len(content))
    content[begin] ^= 255
    content[begin + 1] ^= 255
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Put another shard of the array in its place: whole, and not what was written."""
    other = next(p for p in path.parents[2].rglob("*") if p.is_file() and p != path)
    path.write_bytes(other.read_bytes())


@contextmanager
def damaged(damage: Damage, level: int = 0) -> Iterator[None]:
    """Damage a file of a box after it was written, before it is read for the first time."""

    def read(volume: Volume, channel: int, box: Any, read_level: int) -> Any:
        if level == read_level:
            names = read_back(volume, channel, box, level).files
            first = names.replace(":", " ").split("/")
            damage(volume.path / "/".join(part.split(" ")[0] for part in first))
        return read_back(volume, channel, box, read_level)

    with mock.patch.object(verifying, "read_back", read):
        yield


def noise(region: Region, dtype: str = "uint16") -> np.ndarray:
    rng = np.random.default_rng(region.index)
    return rng.integers(1, 60000, region.box.shape).astype(dtype)


DAMAGES = [halve, Path.unlink, swap, *(partial(flip, where=w) for w in (0.1, 0.5, 0.9))]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_what_is_not_on_disk_as_it_was_written_is_an_error_that_may_pass(tmp_path, ngff, damage):
    spec = spec_of(ngff=ngff)
    volume = create_volume(tmp_path / "a.zarr", spec, StoreAttributes())
    grid = spec.regions(0, SHARD)
    RegionWriter(volume, grid[1], None).add(grid[1].box, noise(grid[1]))
    writer = RegionWriter(volume, grid[0], None)
    with (
        damaged(damage),
        pytest.raises(OSError, match=r"a\.zarr: 0/.* (written|damaged)") as caught,
    ):
        writer.add(grid[0].box, noise(grid[0]))
    assert not isinstance(caught.value, IsosrError)
    writer.add(grid[0].box, noise(grid[0]))


@pytest.mark.parametrize("verified", [1, 8])
def test_what_is_as_it_was_written_passes(tmp_path, verified):
    spec = spec_of("float32")
    volume = create_volume(tmp_path / "a.zarr", spec, StoreAttributes())
    for region in spec.regions(0, SHARD):
        data = noise(region, "float32")
        data[:20] = 0
        data[0, 0, 0], data[-1, -1, 0], data[-1, 0, 0] = -0.0, -0.0, np.nan
        volume.write(0, region.box, data)
        assert verifying.written(volume, 0, region.box, data, verified=verified).size > 0


@pytest.mark.parametrize("damage", [halve, Path.unlink, partial(flip, where=0.999)])
@pytest.mark.parametrize("level", [0, 1])
def test_convert_finds_each_file_that_is_cut_short_or_whose_index_is_altered(
    tmp_path, slices, damage, level
):
    settings = ConvertSettings(voxel_size=(1, 1, 1), chunk=(16,) * 3, shard=(32, 32, 32))
    voxels = np.random.default_rng(1).integers(1, 60000, (40, 80, 200), np.uint16)
    image = processed(open_source(slices(voxels)), settings)
    spec = plan_volume(image, settings)
    create_volume(tmp_path / "a.zarr", spec, StoreAttributes())
    job = ConvertRegion(image, tmp_path / "a.zarr", Zyx(64, 64, 64), spec.levels[1])
    with damaged(damage, level), pytest.raises(OSError, match=rf"a\.zarr: {level}/"):
        job(spec.regions(0, Zyx(64, 64, 64))[0])


def test_a_region_that_is_damaged_once_is_written_again_and_one_always_is_named(client, tmp_path):
    out, spec = tmp_path / "out.zarr", spec_of()
    history = [Provenance(step="fill", source="-", parameters={}, versions={})]
    plan = RegionPlan(SHARD, SHARD, levels=1)

    def work(region: Region) -> dict[str, Any]:
        def damage(path: Path) -> None:
            attempt = len(list(tmp_path.glob(f"{region.index} *")))
            (tmp_path / f"{region.index} {attempt}").touch()
            if region.index == 7 or (region.index == 5 and attempt == 0):
                halve(path)

        writer = RegionWriter(Volume(out, writable=True), region, None)
        with damaged(damage):
            writer.add(region.box, noise(region))
        return writer.finish()

    with (
        begin_output(out, spec, plan, history, "resume") as output,
        pytest.raises(WorkFailedError, match=r"1 of 12 regions failed:\n.*region 7 .*damaged"),
    ):
        output.fill(client, work, SilentReporter(), "fill")
    assert len(list(tmp_path.glob("5 *"))) == 2
    assert len(list(tmp_path.glob("7 *"))) == 3
    volume = Volume(out)
    region = spec.regions(0, SHARD)[5]
    assert (volume.read(0, region.box) == noise(region)).all()
