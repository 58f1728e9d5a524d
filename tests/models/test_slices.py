"""Networks of planes as restorers of volumes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isosr_models import slices
from isosr_models.restorers import Restorer
from isosr_models.slices import PlaneNetwork, SliceNetwork, SliceRestorer

CPU = torch.device("cpu")
SHAPE = (20, 24, 28)


class Pooled(PlaneNetwork):
    """Sees 3 pixels far in cells of 2, and the height otherwise than the width."""

    stride, receptive_radius, width = 2, 5, 3

    def __init__(self, neighbours: int = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.neighbours = neighbours
        self.first = nn.Conv2d(1 + 2 * neighbours, 3, (3, 5), padding=(1, 2))
        self.coarse = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 1, 1)

    def forward(self, stacks: Tensor) -> Tensor:
        fine = torch.relu(self.first(stacks))
        coarse = nn.functional.interpolate(
            self.coarse(nn.functional.avg_pool2d(fine, 2)), scale_factor=2
        )
        middle = stacks[:, self.neighbours : self.neighbours + 1]
        restored: Tensor = middle + self.last(fine + coarse)
        return restored


@pytest.fixture(scope="module")
def network() -> SliceNetwork:
    return SliceNetwork(Pooled())


SEEING_NEIGHBOURS = SliceNetwork(Pooled(neighbours=2))


def test_a_volume_is_the_mean_over_its_slices_one_by_one(network):
    volume = torch.rand(2, 1, *SHAPE)
    restored = network(volume)
    assert restored.shape == volume.shape
    one = volume[1, 0]
    with torch.no_grad():
        for z, y, x in ((3, 5, 7), (0, 0, 0), (19, 23, 27)):
            xz = network.plane(one[:, y, :][None, None])[0, 0, z, x]
            yz = network.plane(one[:, :, x][None, None])[0, 0, z, y]
            assert torch.isclose(restored[1, 0, z, y, x], (xz + yz) / 2, atol=1e-6)


def test_slices_are_given_with_their_neighbours_and_the_outermost_again_beyond_the_ends():
    network, volume = SEEING_NEIGHBOURS, torch.rand(*SHAPE)
    with torch.no_grad():
        restored = network(volume[None, None])[0, 0]
        for y, places in ((0, [0, 0, 0, 1, 2]), (9, [7, 8, 9, 10, 11]), (22, [20, 21, 22, 23, 23])):
            xz = network.plane(volume[:, places].movedim(1, 0)[None])[0, 0]
            for x in (2, 14, 25):
                yz = network.plane(volume[:, :, x - 2 : x + 3].movedim(2, 0)[None])[0, 0]
                expected = (xz[:, x] + yz[:, y]) / 2
                assert torch.allclose(restored[:, y, x], expected, atol=1e-6)


def reach(network: SliceNetwork) -> int:
    """Return how far away an input voxel may lie that an output voxel depends on."""
    found = 0
    for at in ((10, 12, 14), (11, 13, 15)):
        volume = torch.rand(1, 1, *SHAPE, requires_grad=True)
        network(volume)[0, 0, *at].backward()
        seen = volume.grad[0, 0].abs().nonzero()
        found = max(found, int((seen - torch.tensor(at)).abs().max()))
    return found


def test_the_receptive_radius_is_kept(network):
    assert 2 < reach(network) <= network.receptive_radius


starts = st.tuples(*(st.integers(5, n - 6) for n in SHAPE))
lengths = st.tuples(*(st.integers(1, n) for n in SHAPE))


@settings(max_examples=40, deadline=None)
@given(start=starts, length=lengths, at_once=st.integers(1, 3000), seeing=st.booleans())
def test_any_part_of_any_block_equals_the_whole(network, start, length, at_once, seeing):
    network = SEEING_NEIGHBOURS if seeing else network
    volume = torch.rand(1, 1, *SHAPE)
    with torch.no_grad():
        whole = network(volume)
    stop = [min(a + n, whole - 5) for a, n, whole in zip(start, length, SHAPE, strict=True)]
    # The block begins on the stride, and its halo is no larger than it must be.
    first = [(a - 5) // 2 * 2 for a in start]
    last = [min(b + 5 + (b + 5) % 2, n) for b, n in zip(stop, SHAPE, strict=True)]
    block = volume[:, :, *(slice(a, b) for a, b in zip(first, last, strict=True))]
    keep = tuple(slice(a - f, b - f) for a, b, f in zip(start, stop, first, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slices._PIXELS_AT_ONCE, "cpu", at_once)
        found = SliceRestorer(network, CPU)(block, keep)
    wanted = whole[:, :, *(slice(a, b) for a, b in zip(start, stop, strict=True))]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5


def test_the_restorer_says_what_it_needs(network):
    restorer = SliceRestorer(network, CPU)
    assert isinstance(restorer, Restorer)
    assert (restorer.halo, restorer.stride) == (5, 2)
    # Of a pixel: 15 x 3 and 3 multiply-adds in full resolution, 27 x 3 in a quarter of it.
    assert restorer.least_work == 2 * (45 + 3 + 81 / 4)
    kept = tuple([slice(5, n - 5)] for n in SHAPE)
    read = tuple([n] for n in SHAPE)
    assert restorer.work(kept, read) == int(restorer.least_work / 2 * 20 * (14 * 28 + 18 * 24))


def test_bfloat16_is_near_float32(network):
    volume, keep = torch.rand(1, 1, *SHAPE), tuple(slice(6, n - 6) for n in SHAPE)
    exact, fast = (SliceRestorer(network, CPU, p)(volume, keep) for p in ("32", "bf16"))
    assert fast.dtype == torch.float32
    assert 1e-5 < (exact - fast).abs().max() < 0.05
