from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_pipeline.engine.regions import RegionWriter, plan_regions
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.processing import CalibratedSource
from isosr_pipeline.sources import open_source, pages
from isosr_pipeline.steps.convert import ConvertRegion
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.intensity import Histogram
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.pyramid import downsample
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume

LENGTHS = st.tuples(*[st.integers(1, 400)] * 3)
FEW = st.tuples(*[st.integers(1, 3)] * 3)
CHUNKS = st.tuples(*[st.integers(5, 40)] * 3)


def spec_of(shape, chunk, shards, z_size=2.0, dtype="uint16", ngff="0.5"):
    shard = Zyx(*(c * n for c, n in zip(chunk, shards, strict=True)))
    size = (z_size, 1.0, 1.0)
    return VolumeSpec((1, *shape), np.dtype(dtype), size, Zyx(*chunk), shard, ("a",), ngff=ngff)


@given(LENGTHS, CHUNKS, FEW, LENGTHS, st.sampled_from([0.5, 1.0, 2.0]))
def test_regions_are_whole_shards_of_both_levels(shape, chunk, shards, grain, z_size):
    spec = spec_of(shape, chunk, shards, z_size)
    plan = plan_regions(spec, Zyx(*grain))
    for axis in range(3):
        assert plan.piece[axis] % spec.shard[axis] == 0
        assert plan.region[axis] % plan.piece[axis] == 0
        if plan.levels == 2:
            factor = spec.levels[1].factors[axis]
            assert plan.piece[axis] % factor == 0
            assert plan.region[axis] % (factor * spec.shard[axis]) == 0
        held = plan.piece[axis] >= min(grain[axis], shape[axis])
        longer = np.prod(plan.piece) // plan.piece[axis] * (plan.piece[axis] + spec.shard[axis])
        assert held or 2 * 2 * longer > 512 * 2**20


@pytest.mark.parametrize(
    ("shape", "grain", "piece"),
    [
        # rows of uncompressed planes, or of strips: whole rows
        ((512, 1500, 1500), (1, 1, 1500), (64, 256, 2048)),
        # a strip is the whole plane: whole planes of a camera, and as much as fits of larger ones
        ((512, 2048, 2048), (1, 2048, 2048), (64, 2048, 2048)),
        ((512, 4096, 4096), (1, 4096, 4096), (64, 1024, 4096)),
        # tiles, and chunks that are as large as shards: nothing to gain
        ((512, 1500, 1500), (1, 256, 256), (64, 256, 1024)),
    ],
)
def test_pieces_hold_what_is_decoded_together(shape, grain, piece):
    spec = spec_of(shape, (64, 64, 64), (1, 4, 16))
    assert plan_regions(spec, Zyx(*grain)).piece == piece


def test_memory_is_told_beforehand():
    # Measured with one worker: 0.56, 1.28 and 2.06 GB.
    shape, grain = (512, 1500, 1500), Zyx(1, 1, 1500)
    told = []
    for shards in ((1, 12, 24), (2, 16, 24), (4, 16, 24)):
        spec = spec_of(shape, (64, 64, 64), shards)
        told.append(plan_regions(spec, grain).memory(spec) / 1e9)
    assert told == pytest.approx([0.56, 1.28, 2.06], rel=0.3)


@settings(max_examples=15)
@given(
    st.tuples(*[st.integers(1, 120)] * 3),
    CHUNKS,
    FEW,
    LENGTHS,
    st.sampled_from([(0.5, "uint16", "0.5"), (2.0, "float32", "0.4"), (1.0, "int16", "0.5")]),
)
def test_a_region_written_in_pieces_is_the_volume_and_its_average(
    tmp_path_factory, shape, chunk, shards, grain, kind
):
    z_size, dtype, ngff = kind
    spec = spec_of(shape, chunk, shards, z_size, dtype, ngff)
    plan = plan_regions(spec, Zyx(*grain))
    voxels = np.random.default_rng(1).integers(-300, 9000, shape).astype(dtype)
    path = tmp_path_factory.mktemp("regions") / "out.zarr"
    volume = create_volume(path, spec, StoreAttributes())
    total = Histogram(dtype)
    level = spec.levels[1] if plan.levels == 2 else None
    for region in spec.regions(region=plan.region):
        writer = RegionWriter(volume, region, level)
        for box in blocks(region.box, plan.piece):
            writer.add(box, voxels[box.slices])
        total.add_encoded(writer.finish()["histogram"])
    assert (Volume(path).read(0, Box.whole(shape)) == voxels).all()
    if level is not None:
        assert (Volume(path).arrays[1][0] == downsample(voxels, level.factors)).all()
    expected = Histogram(dtype)
    expected.add(voxels)
    assert (total.counts == expected.counts).all()


@pytest.mark.parametrize(
    "layout", [{"rowsperstrip": 7}, {"rowsperstrip": 90}, {"tile": (32, 48)}], ids=str
)
def test_every_strip_and_tile_is_decoded_once(tmp_path, monkeypatch, noise, layout):
    voxels = np.tile(noise, (1, 2, 3))[:, :90, :130]
    path = tmp_path / "source.tif"
    tifffile.imwrite(path, voxels, compression="zlib", **layout)
    source = CalibratedSource(open_source(path), (1.0, 1.0, 1.0))
    # Tiles need not be cut as shards are; strips are whole rows, in whole shards.
    shards = (1, 2, 3) if "tile" in layout else (1, 6, 1)
    spec = spec_of(voxels.shape, (16, 16, 16), shards)
    plan = plan_regions(spec, source.grain)
    volume = create_volume(tmp_path / "out.zarr", spec, StoreAttributes())
    decoded: Counter[object] = Counter()
    read_page = pages.read_page

    def counting(page, rows, columns):
        decoded.update(
            (page.index, segment) for segment in pages._segments(page.keyframe, rows, columns)
        )
        return read_page(page, rows, columns)

    monkeypatch.setattr("isosr_pipeline.sources.tiff.read_page", counting)
    level = spec.levels[1] if plan.levels == 2 else None
    job = ConvertRegion(source, volume.path, plan.piece, level)
    for region in spec.regions(region=plan.region):
        job(region)
    with tifffile.TiffFile(path) as tif:
        per_page = len(tif.pages[0].dataoffsets)
    assert len(decoded) == len(voxels) * per_page
    assert set(decoded.values()) == {1}
    assert (Volume(volume.path).read(0, Box.whole(voxels.shape)) == voxels).all()
