from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from isosr_models.restorers import NetworkRestorer
from isosr_models.unet import UNet3d
from isosr_pipeline.geometry import Box, RegionGrid, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.restoring.redundancy import block_grid
from isosr_pipeline.restoring.schemes import ExactScheme, PaperScheme


@dataclass
class Shape:
    """An image without voxels."""

    shape: tuple[int, int, int, int]
    voxel_size: tuple[float, float, float]
    path: Path = Path("image")


@cache
def restorer_of(statistics: str) -> NetworkRestorer:
    return NetworkRestorer(UNet3d(1), statistics, torch.device("cpu"))


lengths = st.tuples(*[st.integers(1, 40)] * 3).map(lambda values: Zyx(*values))


@st.composite
def parts(draw, shape):
    start = Zyx(*(draw(st.integers(0, n - 1)) for n in shape))
    stop = Zyx(*(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    return Box(start, stop)


def all_blocks(scheme, box, region):
    """The blocks of all regions, one by one."""
    for part in RegionGrid((1, *box.shape), region):
        yield from scheme.blocks(part.box.shifted(box.start))


def chunks_of(found, chunk):
    """The chunks that hold what a block is made from, found voxel by voxel."""
    z = {*found.below, *(found.below + (found.share > 0))}
    axes = (z, found.rows, found.columns)
    return math.prod(
        len({(int(i) + start) // n for i in range(min(indices), max(indices) + 1)})
        for indices, start, n in zip(axes, found.box.start, chunk, strict=True)
    )


@given(
    data=st.data(),
    shape=lengths,
    ratio=st.sampled_from([1.0, 2.5, 0.5]),
    region=lengths,
    block=lengths,
    halo=st.integers(26, 60),
    chunk=lengths,
)
def test_exact_sums_are_those_of_all_blocks(data, shape, ratio, region, block, halo, chunk):
    view = IsotropicView(Shape((1, *shape), (ratio, 1.0, 1.0)))
    box = data.draw(parts(view.shape))
    region = Zyx(*(max(r, n // 3) for r, n in zip(region, box.shape, strict=True)))
    block = Zyx(*(max(b, n // 5) for b, n in zip(block, box.shape, strict=True)))
    check(ExactScheme(block, halo, 4), view, box, region, chunk, "frozen")


@given(data=st.data(), shape=st.tuples(*[st.integers(1, 260)] * 3), chunk=lengths)
def test_the_publications_sums_are_those_of_all_blocks(data, shape, chunk):
    view = IsotropicView(Shape((1, *shape), (1.0, 1.0, 1.0)))
    box = data.draw(parts(view.shape))
    region = Zyx(*(data.draw(st.integers(-(-n // 3), n)) for n in box.shape))
    check(PaperScheme(view.shape), view, box, region, chunk, "block")


def check(scheme, view, box, region, chunk, statistics):
    restorer = restorer_of(statistics)
    count = work = decoded = 0
    for block in all_blocks(scheme, box, region):
        z, y, x = ([part] for part in block.keep.slices)
        depth, height, width = ([n] for n in block.read.shape)
        count += 1
        work += restorer.work((z, y, x), (depth, height, width))
        decoded += chunks_of(view.measured(block.read), chunk) * math.prod(chunk)
    grid = block_grid(scheme, box, region)
    assert len(grid) == count
    assert grid.work(restorer) == work
    assert grid.decoded(view, chunk) == decoded


def test_small_blocks_are_more_redundant():
    view = IsotropicView(Shape((1, 400, 400, 400), (1.0, 1.0, 1.0)))
    box, restorer = Box.whole(view.shape), restorer_of("frozen")
    whole, cut = (
        block_grid(ExactScheme(Zyx(edge, edge, edge), 26, 4), box, Zyx(*view.shape))
        for edge in (400, 130)
    )
    least = restorer.least_work * box.voxels
    assert 1.1 * least < whole.work(restorer) < 1.3 * least
    assert 1.7 * least < cut.work(restorer) < 2.1 * least
    # At the border of the volume the halo is computed, and not read.
    assert whole.decoded(view, Zyx(50, 50, 50)) == box.voxels
    # Of 8 chunks along an axis, the blocks need 0 to 3, 2 to 5, 4 to 7, and 7.
    assert cut.decoded(view, Zyx(50, 50, 50)) == (13 * 50) ** 3
    assert cut.largest == ((130, 130, 130), (184, 184, 184))


@dataclass
class Counting:
    """A scheme that counts how often it is asked, and for how much."""

    scheme: ExactScheme
    asked: list[int] = field(default_factory=list)

    def blocks(self, region):
        self.asked.append(region.voxels)
        return self.scheme.blocks(region)


def test_a_million_regions_are_not_gone_through_one_by_one():
    scheme = Counting(ExactScheme(Zyx(128, 128, 128), 28, 4))
    box = Box.whole((25600, 25600, 25600))
    grid = block_grid(scheme, box, Zyx(256, 256, 256))
    assert len(grid) == 8 * 100**3
    assert scheme.asked == [256] * 300
    view = IsotropicView(Shape((1, 25600, 25600, 25600), (1.0, 1.0, 1.0)))
    per_axis = round(grid.decoded(view, Zyx(64, 64, 64)) ** (1 / 3))
    # All but the first and the last block read two chunks, and one on each side.
    assert per_axis == 64 * (200 * 4 - 2)
