"""What Self-Net trains on, the losses that come of it, and which network learns from which."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional

from isosr_models.checkpoint import Progress, load_checkpoint, save_checkpoint
from isosr_models.configs import SelfNetConfig
from isosr_models.errors import DivergedError
from isosr_models.initial import start_from
from isosr_models.losses import charbonnier, ssim
from isosr_models.methods import create_objective
from isosr_models.model_folder import save_model
from isosr_models.self_net import SelfNet

CPU = torch.device("cpu")
SMALL = {"width": 4, "blocks": 1, "critic_width": 4, "patch": 24, "patches": 2}
BLURRING, UNBLURRING, DEBLURRING = 0.5, 1.5, 1.2
"""What each network multiplies its input by."""


class _Gain(torch.nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, planes):
        return self.gain * planes


class _Critic(torch.nn.Module):
    """A discriminator that keeps what it is shown, and whose score is a factor times that."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.seen: list[torch.Tensor] = []

    def forward(self, planes):
        self.seen.append(planes.detach().clone())
        return self.factor * planes


def _objective(**parameters) -> SelfNet:
    """One with known networks, and plain steps down the gradient, which they then tell."""
    config = SelfNetConfig(**SMALL, cycle_weight=7.0, ssim_weight=0.5, **parameters)
    made = SelfNet(config, CPU)
    made.blur, made.reverse = _Gain(BLURRING), _Gain(UNBLURRING)
    made.deblur.plane = _Gain(DEBLURRING)
    made.critics["axial"], made.critics["coarse"] = _Critic(0.3), _Critic(0.7)
    gains = (made.blur, made.reverse, made.deblur.plane)
    made._generators = torch.optim.SGD([one.gain for one in gains], lr=1e-3)
    made._critics = torch.optim.SGD([one.factor for one in made.critics.values()], lr=1e-3)
    return made


@pytest.fixture
def crops():
    return torch.rand((2, 1, 26, 28, 30), generator=torch.Generator().manual_seed(1))


def _crops(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 1, 8, 8, 8, generator=generator)
    return list(functional.interpolate(coarse, scale_factor=4, mode="trilinear").split(1))


def _weights(objective) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value
        for name, module in objective.modules().items()
        for key, value in module.state_dict().items()
    }


def _loss(sharp, axial, gains, factors, feedback):
    """Return what the generators go down, written out."""
    blur, reverse, deblur = gains
    blurred, unblurred = blur * sharp, reverse * axial
    adversarial = ((factors[0] * blurred - 1) ** 2).mean()
    adversarial = adversarial + ((factors[1] * unblurred - 1) ** 2).mean()
    cycle = (reverse * blurred - sharp).abs().mean() + (blur * unblurred - axial).abs().mean()
    seen = blurred if feedback else blurred.detach()
    deblurring = charbonnier(deblur * seen, sharp) + 0.5 * (1 - ssim(deblur * seen, sharp))
    return {"adversarial": adversarial, "cycle": cycle, "deblurring": deblurring}


@pytest.mark.parametrize("feedback", [1.0, 0.0])
def test_the_losses_and_the_steps_are_those_of_the_publication(crops, feedback):
    objective = _objective(feedback_weight=feedback, noise=False)
    losses = objective.step(crops)
    # Generators are judged first, then patches and what generators made of others.
    judged, axial, blurred = objective.critics["axial"].seen
    _, sharp, unblurred = objective.critics["coarse"].seen
    assert torch.equal(judged, blurred)
    assert torch.allclose(blurred, BLURRING * sharp)
    assert torch.allclose(unblurred, UNBLURRING * axial)

    gains = [torch.tensor(g, requires_grad=True) for g in (BLURRING, UNBLURRING, DEBLURRING)]
    expected = _loss(sharp, axial, gains, (0.3, 0.7), feedback)
    assert {k: losses[k] for k in expected} == pytest.approx(
        {k: float(v.detach()) for k, v in expected.items()}, rel=1e-5
    )
    (expected["adversarial"] + 7 * expected["cycle"] + expected["deblurring"]).backward()
    networks = (objective.blur, objective.reverse, objective.deblur.plane)
    starts = (BLURRING, UNBLURRING, DEBLURRING)
    for network, gain, start in zip(networks, gains, starts, strict=True):
        assert float(network.gain.detach()) == pytest.approx(
            start - 1e-3 * float(gain.grad), abs=2e-7
        )


def test_critics_go_down_their_own_loss_and_no_other(crops):
    objective = _objective(noise=False)
    losses = objective.step(crops)
    total = 0.0
    for critic, start in zip(objective.critics.values(), (0.3, 0.7), strict=True):
        _, real, fake = critic.seen
        factor = torch.tensor(start, requires_grad=True)
        loss = ((factor * real - 1) ** 2).mean() + ((factor * fake) ** 2).mean()
        loss.backward()
        moved = float(critic.factor.detach()) - start
        assert moved == pytest.approx(-1e-3 * float(factor.grad), abs=2e-7)
        total += float(loss.detach())
    assert losses["discrimination"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("z_step", "given", "used"), [(3.0, None, 3.0), (3.0, 2.0, 2.0), (1, 1, 1)]
)
def test_lateral_patches_are_as_coarse_as_planes_are_measured(z_step, given, used):
    torch.manual_seed(0)
    config = SelfNetConfig(**SMALL, downsampling=given, noise=False)
    objective = SelfNet(config, CPU, z_step)
    crop = torch.rand(1, 1, 24, 24, 24)
    sharp, coarse, axial, _ = objective._draw(crop)
    kept = [(coarse[n, 0] == sharp[n, 0]).all(dim=1).nonzero().flatten() for n in range(2)]
    assert all((rows.diff() == used).all() and len(rows) >= 24 // used for rows in kept)
    assert torch.isin(axial, crop).all()


def test_what_is_blurred_has_the_noise_of_lateral_planes_between_the_same_rows():
    torch.manual_seed(0)
    crop = 0.5 + 0.05 * torch.randn(1, 1, 72, 72, 72)
    config = SelfNetConfig(**{**SMALL, "patch": 72}, start="identity")
    objective = SelfNet(config, CPU, 3.0)
    with torch.no_grad():
        _, coarse, _, blurred = objective._draw(crop)
    # Nothing is blurred yet: the difference is the noise.
    noise = (blurred - coarse)[:, 0]
    assert float(noise.std(dim=(1, 2)).max()) == pytest.approx(0.05 * math.sqrt(19 / 27), rel=0.15)
    bend = (noise[:, 2:] - 2 * noise[:, 1:-1] + noise[:, :-2]).abs().amax(dim=(0, 2))
    straight = (bend < 1e-5).nonzero().flatten()
    assert len(straight) >= 2 * (72 // 3) - 4
    bend = (coarse[:, 0, 2:] - 2 * coarse[:, 0, 1:-1] + coarse[:, 0, :-2]).abs().amax(dim=(0, 2))
    assert torch.equal((bend < 1e-5).nonzero().flatten(), straight)


@pytest.mark.parametrize("start", ["identity", "random"])
def test_a_step_changes_every_network(start):
    torch.manual_seed(0)
    objective = create_objective("self-net", {**SMALL, "start": start, "average": 0.9}, CPU)
    before = {k: v.clone() for k, v in _weights(objective).items()}
    for crop in _crops(3):
        losses = objective.step(crop)
    assert all(math.isfinite(v) for v in losses.values())
    after = _weights(objective)
    changed = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"generator", "blur", "reverse", "critics", "average"}


def test_deblurring_is_learned():
    """The blur being given, and its own loss being all that there is."""
    torch.manual_seed(0)
    parameters = {**SMALL, "width": 8, "learning_rate": 3e-3, "noise": False}
    objective = create_objective("self-net", {**parameters, "feedback_weight": 0.0}, CPU, 3.0)
    losses = [objective.step(crop)["deblurring"] for crop in _crops(6) * 5]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_contrast_is_that_of_measured_axial_patches():
    objective = _objective()
    assert objective.contrast() == (0, 0, 0)
    objective.step(_crops(1)[0])
    axial = objective.critics["axial"].seen[1]
    gain = float(objective.deblur.plane.gain.detach())
    spread = float(axial.std())
    expected = (spread, gain * spread, abs(gain - 1) * spread)
    assert objective.contrast() == pytest.approx(expected, rel=1e-4)


def test_divergence_is_an_error_and_changes_nothing():
    objective = create_objective("self-net", SMALL, CPU)
    before = {k: v.clone() for k, v in _weights(objective).items()}
    with pytest.raises(DivergedError, match="learning rate"):
        objective.step(torch.full((1, 1, 32, 32, 32), float("nan")))
    assert all(torch.equal(v, before[k]) for k, v in _weights(objective).items())


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_training_goes_on_from_a_checkpoint_as_if_never_interrupted(tmp_path, average):
    parameters, crops = {**SMALL, "average": average}, _crops(6)
    torch.manual_seed(0)
    straight = create_objective("self-net", parameters, CPU, 2.5)
    for crop in crops:
        straight.step(crop)
    torch.manual_seed(0)
    first = create_objective("self-net", parameters, CPU, 2.5)
    for crop in crops[:3]:
        first.step(crop)
    save_checkpoint(tmp_path, first, Progress(iterations=3, seconds=1.5, run={"seed": 0}))
    torch.manual_seed(99)
    second = create_objective("self-net", parameters, CPU, 2.5)
    load_checkpoint(tmp_path, second)
    for crop in crops[3:]:
        second.step(crop)
    expected = _weights(straight)
    assert all(torch.equal(v, expected[k]) for k, v in _weights(second).items())


def test_a_training_starts_from_a_model_of_its_kind(tmp_path):
    torch.manual_seed(0)
    trained = create_objective("self-net", SMALL, CPU)
    for crop in _crops(2):
        trained.step(crop)
    kept = copy.deepcopy(trained.networks())
    save_model(
        tmp_path / "model",
        kept,
        method="self-net",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    other = create_objective("self-net", {**SMALL, "average": 0.9}, CPU)
    start_from(other, tmp_path / "model", {"method": "self-net", **SMALL, "start": "identity"})
    for name, network in other.networks().items():
        state = kept[name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
