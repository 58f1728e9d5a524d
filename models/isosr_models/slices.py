"""Networks of planes, applied to all axial slices of a volume: XZ and YZ, averaged."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from isosr_models.arithmetic import Kept, Read
from isosr_models.precision import Precision, computing
from isosr_models.restorers import Lengths
from isosr_models.unpadded import Keep
from isosr_models.volume_network import VolumeNetwork

_PIXELS_AT_ONCE = {"cpu": 2**15, "cuda": 2**18}
"""Of slices that are restored together: what caches of a processor hold, and what fills a GPU."""

_LOADED = 150 * 2**20


class PlaneNetwork(nn.Module):
    """A network from planes to their like: (n, 1 + 2k, height, width) to (n, 1, height, width).

    Float32; z is the height. The middle one of each 1 + 2k slices is restored, and k on each side
    of it are its neighbours, in their order.

    Attributes
    ----------
    neighbours : int
        k.
    stride : int
        Height, width and origins of planes must be multiples of this, in voxels.
    receptive_radius : int
        In voxels.
    width : int
        The most feature channels that it has in full resolution.
    """

    neighbours: int = 0
    stride: int
    receptive_radius: int
    width: int


class SliceNetwork(VolumeNetwork):
    """The mean of what a network of planes makes of a volume's XZ slices, and of its YZ slices.

    Parameters
    ----------
    plane : PlaneNetwork
    """

    def __init__(self, plane: PlaneNetwork) -> None:
        super().__init__()
        self.plane = plane
        self.stride = plane.stride
        self.receptive_radius = max(plane.receptive_radius, plane.neighbours)

    def forward(self, volume: Tensor) -> Tensor:
        """Restore volumes.

        Parameters
        ----------
        volume : Tensor, (n, 1, z, y, x) float32

        Returns
        -------
        Tensor, same shape
        """
        return torch.stack([self._restored(one[0])[None] for one in volume])

    def _restored(self, volume: Tensor) -> Tensor:
        restored = torch.zeros_like(volume)
        for axis in (1, 2):
            slices = volume.movedim(axis, 0)
            batches = _batches(slice(0, len(slices)), slices[0].numel(), volume.device)
            stacks = (_stacks(slices, chosen, self.plane.neighbours) for chosen in batches)
            planes = torch.cat([self.plane(stack) for stack in stacks])
            restored = restored + planes[:, 0].movedim(0, axis)
        return restored / 2


class SliceRestorer:
    """A trained `SliceNetwork`, on a device: only slices that are wanted are computed.

    Parameters
    ----------
    network : SliceNetwork
        Not changed: a copy is made for inference.
    device : torch.device
    precision : {"32", "bf16"}
        Of the convolutions; the mean, and the result, are float32.
    """

    normalised = True
    saturates = False

    def __init__(
        self, network: SliceNetwork, device: torch.device, precision: Precision = "32"
    ) -> None:
        self.halo, self.stride = network.receptive_radius, network.stride
        self.device, self.precision = device, precision
        self._width = network.plane.width
        self._plane = copy.deepcopy(network.plane).eval().requires_grad_(False).to(device)
        self._plane.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._work = _multiply_adds(network.plane)

    def memory(self, kept: Lengths, read: Lengths) -> int:
        """Return what the slices that are restored together take, and the block; see `Restorer`."""
        largest = max(read[0] * read[1], read[0] * read[2])
        together = max(largest, _PIXELS_AT_ONCE[self.device.type])
        volumes = 4 * math.prod(read) + 8 * math.prod(kept)
        stacks = 8 * (1 + 2 * self._plane.neighbours) * together
        return int(_LOADED + 16 * self._width * together + stacks + volumes)

    @property
    def least_work(self) -> float:
        """Multiply-adds of the convolutions for a voxel, which lies in two slices."""
        return 2 * self._work

    def work(self, kept: Kept, read: Read) -> int:
        """Count the multiply-adds of the convolutions; see `Restorer`."""
        wanted = [sum(part.stop - part.start for part in axis) for axis in kept]
        z, y, x = (sum(axis) for axis in read)
        return int(self._work * z * (wanted[1] * x + wanted[2] * y))

    @torch.no_grad()
    def __call__(self, block: Tensor, keep: Keep) -> Tensor:
        """Restore a part of a block; see `Restorer`."""
        volume = block.to(self.device)[0, 0]
        restored = torch.zeros([part.stop - part.start for part in keep], device=self.device)
        for axis in (1, 2):
            pixels = volume.shape[0] * volume.shape[3 - axis]
            for chosen in _batches(keep[axis], pixels, self.device):
                stacks = _stacks(volume.movedim(axis, 0), chosen, self._plane.neighbours)
                result = self._planes(stacks, keep[0], keep[3 - axis])
                first = chosen.start - keep[axis].start
                restored.movedim(axis, 0)[first : first + len(result)] += result
        return (restored / 2)[None, None]

    def _planes(self, stacks: Tensor, rows: slice, columns: slice) -> Tensor:
        planes = stacks.contiguous(memory_format=torch.channels_last)
        with computing(self.device, self.precision):
            restored: Tensor = self._plane(planes)
        return restored[:, 0, rows, columns].float()


def _stacks(slices: Tensor, chosen: slice, neighbours: int) -> Tensor:
    """Return slices between their neighbours, (n, 1 + 2k, height, width).

    Beyond the first and the last slice, these take the place of those that are not there.
    """
    if not neighbours:
        return slices[chosen, None]
    places = torch.arange(chosen.start, chosen.stop)[:, None]
    places = places + torch.arange(-neighbours, neighbours + 1)
    return slices[places.clamp(0, len(slices) - 1).to(slices.device)]


def _batches(wanted: slice, pixels: int, device: torch.device) -> Iterator[slice]:
    """Cut a range of slices into as many as are restored together."""
    count = max(1, _PIXELS_AT_ONCE[device.type] // pixels)
    edges = [*range(wanted.start, wanted.stop, count), wanted.stop]
    return (slice(a, b) for a, b in itertools.pairwise(edges))


def _multiply_adds(plane: PlaneNetwork) -> float:
    """Return how many of them a network needs for a pixel."""
    side = 16 * plane.stride
    network = copy.deepcopy(plane).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1 + 2 * plane.neighbours, side, side, device="meta"))
    flops: int = counter.get_total_flops()
    return flops / 2 / side**2
