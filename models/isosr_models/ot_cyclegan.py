"""The OT-CycleGAN objective of Park et al. 2022: one step of it, and what it trains."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from isosr_models.averaging import average_of
from isosr_models.configs import OTCycleGANConfig
from isosr_models.deep_linear import DeepLinear3d
from isosr_models.execution import Execution
from isosr_models.layers import calibrate, hold_statistics
from isosr_models.losses import least_squares
from isosr_models.objective import Contrast
from isosr_models.patchgan import (
    ORIENTATIONS,
    Orientation,
    PatchGAN2d,
    draw_depth,
    draw_planes,
    take_planes,
)
from isosr_models.unet import UNet3d

_BETA2 = 0.999
_AXIAL = "axial"


class Comparison(NamedTuple):
    """What a discriminator is to tell apart: planes of volumes, (n, 1, height, width).

    Attributes
    ----------
    critic : torch.nn.Module
    real, fake : Tensor
        Measured planes, and generated ones that should pass for them.
    """

    critic: nn.Module
    real: Tensor
    fake: Tensor


class OTCycleGAN:
    """Trains G (blurred to sharp), F (sharp to blurred) and the 2D discriminators together.

    D_X compares XY planes of the measured volume y, which are sharp, with planes of G(y) in all
    three orientations; D_Y compares planes of F(G(y)) with the same planes of y (Park et al. 2022,
    Methods, Eq. for L_cycle and L_disc). There are six, or four where the axial ones are shared.

    Parameters
    ----------
    config : OTCycleGANConfig
    device : torch.device
    """

    def __init__(self, config: OTCycleGANConfig, device: torch.device) -> None:
        residual = config.start == "identity"
        self.config = config
        self.execution = Execution()
        self.generator = self._unet(residual).to(device)
        self._average = average_of(self.generator, config.average) if config.average else None
        self._seen: tuple[Tensor, Tensor] | None = None
        self.blur: nn.Module = (
            DeepLinear3d(config.width, residual=residual)
            if config.blur == "deep-linear"
            else self._unet(residual)
        ).to(device)
        self.generator.checkpointing = config.gradient_checkpointing
        self._phase = _Phase()
        critics = dict.fromkeys(self._critic_of(o) for o in ORIENTATIONS)
        self.sharp_critics = nn.ModuleDict({name: PatchGAN2d(config.width) for name in critics})
        self.blurred_critics = nn.ModuleDict({name: PatchGAN2d(config.width) for name in critics})
        self.sharp_critics.to(device)
        self.blurred_critics.to(device)
        self._generators = torch.optim.Adam(
            itertools.chain(self.generator.parameters(), self.blur.parameters()),
            lr=config.learning_rate,
            betas=(config.beta1, _BETA2),
        )
        self._critics = torch.optim.Adam(
            itertools.chain(self.sharp_critics.parameters(), self.blurred_critics.parameters()),
            lr=config.learning_rate,
            betas=(config.beta1, _BETA2),
        )

    def step(self, crops: Tensor) -> dict[str, float]:
        """Improve all networks on a batch of crops, and return the losses by name.

        Parameters
        ----------
        crops : Tensor, (n, 1, z, y, x) float32
            On the isotropic grid, with the intensity window at 0 and 1; saturated to it here.

        Raises
        ------
        DivergedError
            When a loss is not finite; the networks are then as after the previous step.
        """
        hold_statistics(self.generator, self.norm_frozen)
        y = crops.clamp(0.0, 1.0)
        with self.execution.autocast():
            x = self.generator(y).float()
            y_again = self.blur(x).float()
        self._seen = y, x.detach()
        comparisons = list(self._compare(y, x, y_again))

        self._require_critic_gradients(False)
        with self.execution.autocast():
            terms = [least_squares(one.critic(one.fake), 1.0) for one in comparisons]
        adversarial = torch.stack(terms).sum()
        cycle = (y_again - y).abs().mean()
        self.execution.update(self._generators, adversarial + self.config.cycle_weight * cycle)
        if self._average is not None:
            self._average.update_parameters(self.generator)

        self._require_critic_gradients(True)
        with self.execution.autocast():
            terms = [
                least_squares(one.critic(one.real), 1.0)
                + least_squares(one.critic(one.fake.detach()), 0.0)
                for one in comparisons
            ]
        discrimination = torch.stack(terms).sum()
        self.execution.update(self._critics, discrimination)
        losses = self.execution.mean(torch.stack((adversarial, cycle, discrimination)))
        return dict(zip(("adversarial", "cycle", "discrimination"), losses.tolist(), strict=True))

    @property
    def norm_frozen(self) -> bool:
        """Whether G is trained with fixed statistics; part of a checkpoint."""
        return bool(self._phase.frozen)

    def freeze_norm(self, crops: Iterable[Tensor]) -> None:
        """Calibrate the restorer, and go on from it with its statistics as constants.

        Where an average of the weights is kept, G takes its weights too: all that is averaged from
        here on then belongs to one set of statistics.

        Parameters
        ----------
        crops : iterable of Tensor, each (1, 1, z, y, x) float32
            Like those of the training; on the networks' device.
        """
        calibrate(self.restorer, crops)
        if self._average is not None:
            self.generator.load_state_dict(self.restorer.state_dict())
        self._phase.frozen.fill_(True)

    def release_norm(self) -> None:
        """Go on with each crop normalised by its own statistics, which the running ones follow."""
        self._phase.frozen.fill_(False)

    @property
    def restorer(self) -> UNet3d:
        """The generator, or the average of its weights."""
        if self._average is None:
            return self.generator
        return cast(UNet3d, self._average.module)

    def contrast(self) -> Contrast:
        """Return the contrast of the last crops, before and after."""
        if self._seen is None:
            return Contrast(0.0, 0.0, 0.0)
        y, x = self._seen
        spreads = torch.stack((y.std(), x.std(), (x - y).std()))
        return Contrast(*self.execution.mean(spreads).tolist())

    def networks(self) -> dict[str, nn.Module]:
        """Return what a model folder keeps: the restorer, and the blur that it has learned."""
        return {"generator": self.restorer, "blur": self.blur}

    def modules(self) -> dict[str, nn.Module]:
        """Return all that has a state, for a checkpoint."""
        modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "blur": self.blur,
            "sharp_critics": self.sharp_critics,
            "blurred_critics": self.blurred_critics,
            "phase": self._phase,
        }
        return modules if self._average is None else {**modules, "average": self._average}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name, for a checkpoint."""
        return {"generators": self._generators, "critics": self._critics}

    def _compare(self, y: Tensor, x: Tensor, y_again: Tensor) -> Iterator[Comparison]:
        """Draw the planes of the six comparisons."""
        count = self.config.planes
        depth = draw_depth() if self.config.projections else 1
        for orientation in ORIENTATIONS:
            lateral = draw_planes(y.shape, "xy", count).to(y.device)
            across = draw_planes(y.shape, orientation, count).to(y.device)
            critic = self._critic_of(orientation)
            yield Comparison(
                self.sharp_critics[critic],
                real=take_planes(y, "xy", lateral, depth),
                fake=take_planes(x, orientation, across, depth),
            )
            yield Comparison(
                self.blurred_critics[critic],
                real=take_planes(y, orientation, across),
                fake=take_planes(y_again, orientation, across),
            )

    def _unet(self, residual: bool) -> UNet3d:
        return UNet3d(
            self.config.width, residual=residual, bottleneck_norm=self.config.bottleneck_norm
        )

    def _critic_of(self, orientation: Orientation) -> str:
        return _AXIAL if self.config.shared_axial and orientation != "xy" else orientation

    def _require_critic_gradients(self, required: bool) -> None:
        self.sharp_critics.requires_grad_(required)
        self.blurred_critics.requires_grad_(required)


class _Phase(nn.Module):
    """What a checkpoint must know of a training besides its networks."""

    frozen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frozen", torch.tensor(False))
