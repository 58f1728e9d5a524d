"""The Self-Net objective of Ning et al. 2023: a degradation that is learned, and undone."""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from isosr_models.averaging import average_of
from isosr_models.configs import SelfNetConfig
from isosr_models.execution import Execution
from isosr_models.losses import charbonnier, least_squares, ssim
from isosr_models.objective import Contrast, Unnormalised
from isosr_models.patches import coarsened, draw_patches, noise_of
from isosr_models.patchgan import PatchGAN2d
from isosr_models.resnet import ResNet2d
from isosr_models.slices import SliceNetwork

_BETA2 = 0.999
_STRIDED = 2


class Patches(NamedTuple):
    """Patches of a step, each (n, 1, height, width) with the height along z or what stands for it.

    Attributes
    ----------
    sharp : Tensor
        Of lateral planes, as measured.
    coarse : Tensor
        The same, down-sampled along their height and interpolated: domain A.
    axial : Tensor
        Of axial planes, as measured: domain B.
    blurred : Tensor
        What the degradation made of `coarse`, with noise, to pass for axial.
    """

    sharp: Tensor
    coarse: Tensor
    axial: Tensor
    blurred: Tensor


class SelfNet(Unnormalised):
    """Trains a CycleGAN that blurs lateral slices like axial ones, and DeblurNet, which undoes it.

    Stage 1 compares coarse lateral slices with axial ones, unpaired, by two generators and two
    discriminators. Stage 2 turns what stage 1 has blurred back into the slice that it came from,
    which is known; its loss reaches back into the generator that blurs (Ning et al. 2023, Methods).
    Both are improved at each step.

    Parameters
    ----------
    config : SelfNetConfig
    device : torch.device
    z_step : float
        Distance of measured planes along z, in voxels of the isotropic grid: the down-sampling,
        unless the config gives another.
    """

    def __init__(self, config: SelfNetConfig, device: torch.device, z_step: float = 1.0) -> None:
        self.config = config
        self.execution = Execution()
        self._downsampling = z_step if config.downsampling is None else config.downsampling
        self.deblur = SliceNetwork(self._resnet()).to(device)
        self.blur, self.reverse = self._resnet().to(device), self._resnet().to(device)
        self._average = average_of(self.deblur, config.average) if config.average else None
        self.critics = nn.ModuleDict({name: self._critic() for name in ("axial", "coarse")})
        self.critics.to(device)
        self._seen: Tensor | None = None
        generators = (self.blur, self.reverse, self.deblur)
        self._generators = self._adam(*generators)
        self._critics = self._adam(self.critics)

    def step(self, crops: Tensor) -> dict[str, float]:
        """Improve all networks on patches of a batch of crops, and return the losses by name.

        Parameters
        ----------
        crops : Tensor, (n, 1, z, y, x) float32
            On the isotropic grid, with the intensity window at 0 and 1; saturated to it here.

        Raises
        ------
        DivergedError
            When a loss is not finite; the networks are then as after the previous step.
        """
        patches = self._draw(crops.clamp(0.0, 1.0))
        with self.execution.autocast():
            unblurred = self.reverse(patches.axial).float()
            coarse_again = self.reverse(patches.blurred).float()
        axial_again = self._blurred(unblurred)
        cycle = (coarse_again - patches.coarse).abs().mean()
        cycle = cycle + (axial_again - patches.axial).abs().mean()
        self.critics.requires_grad_(False)
        adversarial = least_squares(self._judge("axial", patches.blurred), 1.0)
        adversarial = adversarial + least_squares(self._judge("coarse", unblurred), 1.0)
        deblurring = self._deblurring(patches)
        self.execution.update(
            self._generators, adversarial + self.config.cycle_weight * cycle + deblurring
        )
        if self._average is not None:
            self._average.update_parameters(self.deblur)

        self.critics.requires_grad_(True)
        discrimination = self._discrimination("axial", patches.axial, patches.blurred)
        discrimination = discrimination + self._discrimination("coarse", patches.coarse, unblurred)
        self.execution.update(self._critics, discrimination)
        self._seen = patches.axial
        named = {
            "adversarial": adversarial,
            "cycle": cycle,
            "deblurring": deblurring,
            "discrimination": discrimination,
        }
        losses = self.execution.mean(torch.stack(list(named.values())))
        return dict(zip(named, losses.tolist(), strict=True))

    @property
    def restorer(self) -> SliceNetwork:
        """DeblurNet on all axial slices, or the average of its weights."""
        return self.deblur if self._average is None else cast(SliceNetwork, self._average.module)

    @torch.no_grad()
    def contrast(self) -> Contrast:
        """Return the contrast of the last axial patches, before and after."""
        if self._seen is None:
            return Contrast(0.0, 0.0, 0.0)
        with self.execution.autocast():
            restored = self.deblur.plane(self._seen).float()
        spreads = (self._seen.std(), restored.std(), (restored - self._seen).std())
        return Contrast(*self.execution.mean(torch.stack(spreads)).tolist())

    def networks(self) -> dict[str, nn.Module]:
        """Return what a model folder keeps: the restorer, and the generators of stage 1."""
        return {"generator": self.restorer, "blur": self.blur, "reverse": self.reverse}

    def modules(self) -> dict[str, nn.Module]:
        """Return all that has a state, for a checkpoint."""
        modules: dict[str, nn.Module] = {
            "generator": self.deblur,
            "blur": self.blur,
            "reverse": self.reverse,
            "critics": self.critics,
        }
        return modules if self._average is None else {**modules, "average": self._average}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name, for a checkpoint."""
        return {"generators": self._generators, "critics": self._critics}

    def _draw(self, crops: Tensor) -> Patches:
        """Cut the patches of a step, and blur the coarse ones."""
        count, side = self.config.patches, self.config.patch
        sharp = draw_patches(crops, "lateral", count, side)
        axial = draw_patches(crops, "axial", count, side)
        if not self.config.noise:
            coarse = coarsened(sharp, self._downsampling)
            return Patches(sharp, coarse, axial, self._blurred(coarse))
        # Together, as planes and their noise are interpolated between the same rows.
        both = coarsened(torch.cat((sharp, noise_of(sharp))), self._downsampling)
        coarse, noise = both.chunk(2)
        return Patches(sharp, coarse, axial, self._blurred(coarse) + noise)

    def _blurred(self, planes: Tensor) -> Tensor:
        with self.execution.autocast():
            blurred: Tensor = self.blur(planes)
        return blurred.float()

    def _deblurring(self, patches: Patches) -> Tensor:
        """Return what DeblurNet lacks: Charbonnier's loss, and the weighted lack of SSIM."""
        weight = self.config.feedback_weight
        # The same values: of the gradient, that share reaches the blur.
        blurred = torch.lerp(patches.blurred.detach(), patches.blurred, weight)
        with self.execution.autocast():
            deblurred = self.deblur.plane(blurred).float()
        unlike = 1 - ssim(deblurred, patches.sharp)
        return charbonnier(deblurred, patches.sharp) + self.config.ssim_weight * unlike

    def _judge(self, critic: str, planes: Tensor) -> Tensor:
        with self.execution.autocast():
            scores: Tensor = self.critics[critic](planes)
        return scores

    def _discrimination(self, critic: str, real: Tensor, fake: Tensor) -> Tensor:
        judged = least_squares(self._judge(critic, real), 1.0)
        return judged + least_squares(self._judge(critic, fake.detach()), 0.0)

    def _resnet(self) -> ResNet2d:
        config = self.config
        return ResNet2d(config.width, config.blocks, residual=config.start == "identity")

    def _critic(self) -> PatchGAN2d:
        return PatchGAN2d(self.config.critic_width, strided=_STRIDED, norm=False)

    def _adam(self, *networks: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            itertools.chain.from_iterable(network.parameters() for network in networks),
            lr=self.config.learning_rate,
            betas=(self.config.beta1, _BETA2),
        )
