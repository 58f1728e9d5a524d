"""The objective of ``self-blur``: lateral planes, blurred as z is, are to be made sharp again.

See docs/method.md, "self-blur".
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from isosr_models.averaging import average_of
from isosr_models.configs import Degradation, SelfBlurConfig
from isosr_models.degradation import Noise, Pair, degrade, degrade_clean, reflect_ends
from isosr_models.execution import Execution
from isosr_models.objective import Contrast, Unnormalised
from isosr_models.restored_planes import RestoredPlanes
from isosr_models.slices import SliceNetwork
from isosr_models.unet2d import UNet2d

LEAST_CROP = 16
"""Shortest side of a crop that can be trained on, in voxels."""

# Small structures are the dimmer the more they are blurred: what is to be restored is brighter than
# a lateral plane that was blurred once more.
_GAINS = (0.5, 3.0)
_PHASES = 1000
_LEAST_SQUARE = 0.1
_FALLING = 1 / 2
_LOWEST_RATE = 0.01
_FROM_RESTORED = 0.15
"""Share of a training after which it learns from crops that were restored."""
# A network that sees fewer learns them by heart.
_ENOUGH = 4
_DECAY = 0.99
_ENDING = 0.5
"""Share of planes that end along an axis, as volumes do."""


class SelfBlur(Unnormalised):
    """Trains a 2D network, supervised, on lateral planes and what `degrade` makes of them.

    Soon, lateral planes are those of crops that were restored: by an average of the network's
    weights, as it then is, which is ahead of each of them. See `isosr_models.restored_planes`.

    Parameters
    ----------
    config : SelfBlurConfig
    degradation : Degradation
        What is known of the volume's axial blur and noise.
    z_step : float
        Distance of measured planes along z, in voxels of the isotropic grid.
    device : torch.device
    """

    def __init__(
        self,
        config: SelfBlurConfig,
        degradation: Degradation,
        z_step: float,
        device: torch.device,
    ) -> None:
        self.config, self.degradation, self.z_step = config, degradation, z_step
        self.execution = Execution()
        self._plane = UNet2d(config.width, config.neighbours)
        self._network = SliceNetwork(self._plane).to(device)
        # A step takes a tenth to a quarter less time.
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teacher = average_of(self._network, _DECAY)
        self._share = 0.0
        self._planes = RestoredPlanes(config.neighbours)
        self._seen: tuple[Tensor, Tensor] | None = None
        self._adam = torch.optim.Adam(self._network.parameters(), lr=config.learning_rate)

    def set_share(self, share: float) -> None:
        """Set what is learned from, and the learning rate.

        The rate falls in a straight line in the last half of a training.

        Parameters
        ----------
        share : float
            Of the training that has been done: 0 to 1.
        """
        self._share = share
        left = min(1.0, (1.0 - share) / _FALLING)
        for group in self._adam.param_groups:
            group["lr"] = self.config.learning_rate * max(_LOWEST_RATE, left)

    def step(self, crops: Tensor) -> dict[str, float]:
        """Improve the network on some lateral planes of crops; return the loss by name.

        Parameters
        ----------
        crops : Tensor, (n, 1, z, y, x) float32
            On the isotropic grid, as long along y as along x, the intensity window at 0 and 1.

        Raises
        ------
        DivergedError
            When the loss is not finite; the network is then as after the previous step.
        """
        pair = self._draw(crops[:, 0])
        with self.execution.autocast():
            blurred = pair.blurred.contiguous(memory_format=torch.channels_last)
            restored = self._plane(blurred).float()
        middle = self.config.neighbours
        self._seen = pair.blurred[:, middle : middle + 1], restored.detach()
        loss = (restored - pair.sharp).abs().mean()
        self.execution.update(self._adam, loss)
        self._teacher.update_parameters(self._network)
        return {"restoration": float(self.execution.mean(loss))}

    def _draw(self, crops: Tensor) -> Pair:
        """Draw planes, along which axis they are blurred, and how."""
        known, count = self.degradation, len(crops) * self.config.planes
        along_x = torch.rand(count) < 0.5
        squares = torch.where(along_x, known.square_x, known.square_y)
        squares = squares + known.error * torch.randn(count)
        phase = torch.randint(_PHASES, (count,)) % self.z_step
        gain = torch.exp(torch.empty(count).uniform_(*map(math.log, _GAINS)))
        measured = self._learns_from_measured()
        stacks = self._measured(crops) if measured else self._restored(crops, count)
        turned = along_x[:, None, None, None].to(stacks.device)
        stacks = torch.where(turned, stacks.transpose(2, 3), stacks)
        noise = Noise(known.noise_gain, known.noise_floor)
        sigma = squares.clamp(min=_LEAST_SQUARE).sqrt()
        # Each column is blurred by itself, and so planes may stand side by side.
        columns = stacks.transpose(1, 2)
        make = degrade if measured else degrade_clean
        pair = make(columns.flatten(2), sigma, phase, self.z_step, noise, gain)
        blurred, sharp = (side.reshape(columns.shape).transpose(1, 2) for side in pair)
        seen, middle = 1 + 2 * self.config.neighbours, stacks.shape[1] // 2
        pair = Pair(blurred.expand(-1, seen, -1, -1), sharp[:, middle : middle + 1])
        return reflect_ends(pair, phase, self.z_step, _ENDING)

    def _learns_from_measured(self) -> bool:
        """Draw whether a step does: at first, and in some share of the others."""
        # One that began as a trained network has no use for planes whose neighbours say nothing.
        if self._share < _FROM_RESTORED and not self._plane.sees_neighbours:
            return True
        return bool(torch.rand(()) < self.config.measured)

    def _measured(self, crops: Tensor) -> Tensor:
        """Draw lateral planes of all crops, (n, 1, y, x).

        Their neighbours are blurred along z, and say nothing of those of axial slices: a plane
        takes their place, so that nothing is learned from them.
        """
        of = torch.arange(len(crops)).repeat_interleave(self.config.planes)
        return crops[of, torch.randint(crops.shape[1], (len(of),))][:, None]

    def _restored(self, crops: Tensor, count: int) -> Tensor:
        """Draw lateral planes of restored crops, (n, 1 + 2k, y, x); restore one now and then."""
        # A crop's slices are restored for a third of the time that steps take until the next one.
        is_due = torch.rand(()) < count / (2 * crops.shape[1])
        if len(self._planes) < _ENOUGH or is_due:
            self._add(crops[0])
        return self._planes.draw(count).to(crops.device)

    @torch.no_grad()
    def _add(self, crop: Tensor) -> None:
        teacher = cast(SliceNetwork, self._teacher.module)
        depth = len(crop) // teacher.stride * teacher.stride
        with self.execution.autocast():
            restored = teacher(crop[None, None, :depth])
        self._planes.add(restored[0, 0].float())

    @property
    def restorer(self) -> SliceNetwork:
        """The network, on all axial slices."""
        return self._network

    def contrast(self) -> Contrast:
        """Return the contrast of the last planes, before and after."""
        if self._seen is None:
            return Contrast(0.0, 0.0, 0.0)
        y, x = self._seen
        spreads = torch.stack((y.std(), x.std(), (x - y).std()))
        return Contrast(*self.execution.mean(spreads).tolist())

    def networks(self) -> dict[str, nn.Module]:
        """Return what a model folder keeps."""
        return {"generator": self._network}

    def modules(self) -> dict[str, nn.Module]:
        """Return all that has a state, for a checkpoint.

        Processes that train together each have planes of their own crops. A checkpoint is of one of
        them only, whose planes are not for all: each begins anew with its own.
        """
        modules = {"generator": self._network, "teacher": self._teacher}
        return modules if self.execution.is_shared else {**modules, "planes": self._planes}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimiser, for a checkpoint."""
        return {"adam": self._adam}
