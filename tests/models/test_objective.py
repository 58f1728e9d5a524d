"""What the six discriminators are shown, and the losses that come of it, by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from isosr_models.ot_cyclegan import OTCycleGAN, OTCycleGANConfig

CPU = torch.device("cpu")
SHAPE = (32, 36, 40)
AXES = {"xy": 0, "xz": 1, "yz": 2}
SHARPENED, BLURRED = 1.5, 0.6
"""What G multiplies its input by, and what F does: y becomes 0.9 y."""


class _Gain(torch.nn.Module):
    """A generator that multiplies by a factor."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, volume):
        return self.gain * volume


class _Critic(torch.nn.Module):
    """A discriminator that keeps what it is shown, and whose score is a factor times that."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.seen: list[torch.Tensor] = []

    def forward(self, planes):
        self.seen.append(planes.detach().clone())
        return self.factor * planes


@pytest.fixture
def objective():
    """Six critics of their own, and generators with a known cycle that is not zero."""
    made = OTCycleGAN(OTCycleGANConfig(width=4, planes=3, cycle_weight=7.0), CPU)
    made.generator, made.blur = _Gain(SHARPENED), _Gain(BLURRED)
    for orientation, factor in zip(AXES, (0.3, 0.5, 0.7), strict=True):
        made.sharp_critics[orientation] = _Critic(factor)
        made.blurred_critics[orientation] = _Critic(-factor)
    gains = [*made.generator.parameters(), *made.blur.parameters()]
    factors = [*made.sharp_critics.parameters(), *made.blurred_critics.parameters()]
    # Plain steps down the gradient, which they then tell.
    made._generators = torch.optim.SGD(gains, lr=1e-3)
    made._critics = torch.optim.SGD(factors, lr=1e-3)
    return made


@pytest.fixture
def crop():
    return torch.rand((1, 1, *SHAPE), generator=torch.Generator().manual_seed(1))


def _places(planes, volume, axis):
    """Return where in a volume planes lie, each of which must be one of it."""
    across = volume[0, 0].movedim(axis, 0)
    assert planes.shape[1:] == (1, *across.shape[1:])
    found = []
    for plane in planes[:, 0]:
        (place,) = ((across - plane).abs().amax((1, 2)) < 1e-6).nonzero().flatten().tolist()
        found.append(place)
    assert len(set(found)) == len(found) == 3
    return found


@pytest.mark.parametrize("orientation", AXES)
def test_sharp_critics_compare_lateral_planes_of_y_with_planes_of_x(objective, crop, orientation):
    objective.step(crop)
    generators, real, fake = objective.sharp_critics[orientation].seen
    _places(real, crop, AXES["xy"])
    x = SHARPENED * crop
    assert _places(fake, x, AXES[orientation]) == _places(generators, x, AXES[orientation])


@pytest.mark.parametrize("orientation", AXES)
def test_blurred_critics_compare_the_same_planes_of_y_before_and_after(
    objective, crop, orientation
):
    objective.step(crop)
    generators, real, fake = objective.blurred_critics[orientation].seen
    axis = AXES[orientation]
    again = BLURRED * SHARPENED * crop
    places = _places(real, crop, axis)
    assert _places(fake, again, axis) == _places(generators, again, axis) == places


def _expected(objective, crop):
    """Return the losses of a step, from what the critics have been shown in it."""
    adversarial = discrimination = 0.0
    for critics, sign in ((objective.sharp_critics, 1), (objective.blurred_critics, -1)):
        for critic, size in zip(critics.values(), (0.3, 0.5, 0.7), strict=True):
            generators, real, fake = (sign * size * planes for planes in critic.seen)
            adversarial += float(((generators - 1) ** 2).mean())
            discrimination += float(((real - 1) ** 2).mean() + (fake**2).mean())
    cycle = abs(SHARPENED * BLURRED - 1) * float(crop.mean())
    return {"adversarial": adversarial, "cycle": cycle, "discrimination": discrimination}


def test_the_losses_of_a_step_are_those_of_the_publication(objective, crop):
    losses = objective.step(crop)
    assert losses == pytest.approx(_expected(objective, crop), rel=1e-5)
    assert losses["cycle"] == pytest.approx(0.05, rel=0.02)


def test_generators_go_down_the_adversarial_loss_and_the_weighted_cycle(objective, crop):
    before = copy.deepcopy(objective)
    objective.step(crop)
    gain, blur = (torch.tensor(value, requires_grad=True) for value in (SHARPENED, BLURRED))
    loss = 7.0 * (gain * blur * crop - crop).abs().mean()
    for critics, sign in ((objective.sharp_critics, 1), (objective.blurred_critics, -1)):
        for critic, size in zip(critics.values(), (0.3, 0.5, 0.7), strict=True):
            shown = critic.seen[0] / (SHARPENED if sign > 0 else SHARPENED * BLURRED)
            fake = gain * shown if sign > 0 else gain * blur * shown
            loss = loss + ((sign * size * fake - 1) ** 2).mean()
    loss.backward()
    for now, old, slope in (
        (objective.generator, before.generator, gain.grad),
        (objective.blur, before.blur, blur.grad),
    ):
        moved = float(now.gain.detach() - old.gain.detach())
        assert moved == pytest.approx(-1e-3 * float(slope), rel=1e-3)


def test_critics_go_down_their_own_loss_and_no_other(objective, crop):
    objective.step(crop)
    for critics, sign in ((objective.sharp_critics, 1), (objective.blurred_critics, -1)):
        for critic, size in zip(critics.values(), (0.3, 0.5, 0.7), strict=True):
            _, real, fake = critic.seen
            factor = torch.tensor(float(sign * size), requires_grad=True)
            (((factor * real - 1) ** 2).mean() + ((factor * fake) ** 2).mean()).backward()
            moved = float(critic.factor.detach() - factor.detach())
            assert moved == pytest.approx(-1e-3 * float(factor.grad), rel=1e-3)
