from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_models.restorers import NetworkRestorer
from isosr_models.unet import UNet3d

WIDTH = 2


@cache
def restorer_of(statistics: str) -> NetworkRestorer:
    torch.manual_seed(1)
    return NetworkRestorer(UNet3d(WIDTH), statistics, torch.device("cpu"))


def counted_by_hooks(restorer, keep, read) -> int:
    """What the convolutions of the network really multiply, from the shapes that they see."""
    total = 0

    def hook(module, inputs, output):
        nonlocal total
        taps = math.prod(module.kernel_size) * module.in_channels * module.out_channels
        # A transposed convolution multiplies every voxel that it takes, not that it gives.
        ends = inputs[0] if isinstance(module, torch.nn.ConvTranspose3d) else output
        total += taps * math.prod(ends.shape[2:])

    handles = [
        module.register_forward_hook(hook)
        for module in restorer._network.modules()
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d)
    ]
    restorer(torch.zeros(1, 1, *read), keep)
    for handle in handles:
        handle.remove()
    return total


starts_and_lengths = st.tuples(st.integers(26, 33), st.integers(1, 15))


@pytest.mark.parametrize("statistics", ["frozen", "block"])
@settings(max_examples=8)
@given(parts=st.tuples(*[starts_and_lengths] * 3), pads=st.tuples(*[st.integers(0, 2)] * 3))
def test_a_blocks_work_is_what_its_convolutions_multiply(statistics, parts, pads):
    restorer = restorer_of(statistics)
    keep = tuple(slice(a, a + n) for a, n in parts)
    read = tuple(-(-(k.stop + 26) // 4) * 4 + 4 * p for k, p in zip(keep, pads, strict=True))
    found = restorer.work(tuple([k] for k in keep), tuple([n] for n in read))
    assert found == counted_by_hooks(restorer, keep, read)


@pytest.mark.parametrize("statistics", ["frozen", "block"])
@given(
    grid=st.tuples(*[st.lists(starts_and_lengths, min_size=1, max_size=3)] * 3),
)
def test_the_work_of_a_grid_is_the_sum_over_its_blocks(statistics, grid):
    restorer = restorer_of(statistics)
    kept = tuple([slice(a, a + n) for a, n in axis] for axis in grid)
    read = tuple([-(-(a + n + 26) // 4) * 4 for a, n in axis] for axis in grid)
    each = (
        restorer.work(tuple([k] for k in keep), tuple([n] for n in lengths))
        for keep, lengths in zip(itertools.product(*kept), itertools.product(*read), strict=True)
    )
    assert restorer.work(kept, read) == sum(each)


def test_large_blocks_take_little_more_than_no_halo_would_and_small_ones_much():
    restorer = restorer_of("frozen")

    def over(edge):
        work = restorer.work(([slice(28, 28 + edge)],) * 3, ([edge + 56],) * 3)
        return work / (restorer.least_work * edge**3)

    assert 1 < over(4000) < 1.02
    assert over(120) < over(60) / 1.4
