from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from isosr_models.checkpoint import (
    CHECKPOINT,
    Progress,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from isosr_models.errors import DivergedError, ModelConfigError, ModelFormatError
from isosr_models.methods import create_objective
from isosr_models.ot_cyclegan import OTCycleGAN, OTCycleGANConfig

CPU = torch.device("cpu")
SMALL = {"width": 4, "planes": 2}
AVERAGED = {**SMALL, "average": 0.9}


def _crops(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(1, 1, 32, 32, 32, generator=generator) for _ in range(count)]


def _weights(objective) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value
        for name, module in objective.modules().items()
        for key, value in module.state_dict().items()
    }


class _Constant(torch.nn.Module):
    """A discriminator that gives every patch one score."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = torch.nn.Parameter(torch.tensor(score))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        return self.score.expand(len(planes), 1, 2, 2) + 0 * planes.mean()


def test_the_losses_of_a_step_by_hand():
    """Identity generators and constant critics: every term is known."""
    objective = OTCycleGAN(OTCycleGANConfig(**SMALL), CPU)
    for critics, score in ((objective.sharp_critics, 0.25), (objective.blurred_critics, 0.5)):
        for orientation in critics:
            critics[orientation] = _Constant(score)
    losses = objective.step(_crops(1)[0])
    assert losses["adversarial"] == pytest.approx(3 * 0.75**2 + 3 * 0.5**2)
    assert losses["discrimination"] == pytest.approx(
        3 * (0.75**2 + 0.25**2) + 3 * (0.5**2 + 0.5**2)
    )
    assert losses["cycle"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("blur", ["deep-linear", "unet"])
@pytest.mark.parametrize("start", ["identity", "random"])
def test_a_step_changes_every_network(blur, start):
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", {**SMALL, "blur": blur, "start": start}, CPU)
    before = {k: v.clone() for k, v in _weights(objective).items()}
    for crop in _crops(2):
        losses = objective.step(crop)
    assert all(math.isfinite(v) for v in losses.values())
    after = _weights(objective)
    changed = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"generator", "blur", "sharp_critics", "blurred_critics"}


def test_the_cycle_alone_learns_to_give_back_the_input():
    torch.manual_seed(0)
    parameters = {**SMALL, "start": "random", "cycle_weight": 1000.0, "learning_rate": 3e-3}
    objective = create_objective("ot-cyclegan", parameters, CPU)
    coarse = torch.rand(1, 1, 4, 4, 4)
    crop = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="trilinear")
    losses = [objective.step(crop)["cycle"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]


def test_divergence_is_an_error_and_not_saved():
    objective = create_objective("ot-cyclegan", SMALL, CPU)
    before = {k: v.clone() for k, v in _weights(objective).items() if "running" not in k}
    with pytest.raises(DivergedError, match="learning rate"):
        objective.step(torch.full((1, 1, 32, 32, 32), float("nan")))
    assert all(torch.equal(v, _weights(objective)[k]) for k, v in before.items() if "num" not in k)


def test_unknown_methods_and_parameters_are_refused():
    with pytest.raises(ModelConfigError, match="ot-cyclegan"):
        create_objective("magic", {}, CPU)
    with pytest.raises(ValidationError, match="widht"):
        create_objective("ot-cyclegan", {"widht": 8}, CPU)


def test_the_restorer_is_the_average_of_the_weights_if_asked_for():
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", {**AVERAGED, "learning_rate": 1e-2}, CPU)
    weights = []
    for crop in _crops(3):
        objective.step(crop)
        weights.append(objective.generator.head[0].weight.detach().clone())
    # The first is copied; then the decay is n / (n + 10), below 0.9 until n is 90.
    mean = weights[0]
    for count, now in enumerate(weights[1:], start=1):
        mean = mean + (now - mean) * (1 - count / (count + 10))
    kept = objective.networks()["generator"].head[0].weight
    assert torch.allclose(kept, mean)
    assert not torch.allclose(kept, weights[-1])
    plain = create_objective("ot-cyclegan", SMALL, CPU)
    assert plain.networks()["generator"] is plain.generator


def test_a_batch_is_judged_plane_by_plane():
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", SMALL, CPU)
    losses = objective.step(torch.cat(_crops(3)))
    assert all(math.isfinite(v) for v in losses.values())


@pytest.mark.parametrize("SMALL", [SMALL, AVERAGED], ids=["last", "average"])
def test_training_goes_on_from_a_checkpoint_as_if_never_interrupted(tmp_path, SMALL):  # noqa: N803
    crops = _crops(6)
    torch.manual_seed(0)
    straight = create_objective("ot-cyclegan", SMALL, CPU)
    for crop in crops:
        straight.step(crop)

    torch.manual_seed(0)
    first = create_objective("ot-cyclegan", SMALL, CPU)
    for crop in crops[:3]:
        first.step(crop)
    save_checkpoint(tmp_path, first, Progress(iterations=3, seconds=1.5, run={"seed": 0}))
    torch.manual_seed(99)
    second = create_objective("ot-cyclegan", SMALL, CPU)
    progress = load_checkpoint(tmp_path, second)
    assert progress == read_progress(tmp_path)
    assert (progress.iterations, progress.run) == (3, {"seed": 0})
    for crop in crops[3:]:
        second.step(crop)
    expected = _weights(straight)
    assert all(torch.equal(v, expected[k]) for k, v in _weights(second).items())


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    objective = create_objective("ot-cyclegan", SMALL, CPU)
    with pytest.raises(ModelFormatError, match="no readable checkpoint"):
        read_progress(tmp_path)
    save_checkpoint(tmp_path, objective, Progress(iterations=0, seconds=0, run={}))
    other = create_objective("ot-cyclegan", {**SMALL, "width": 8}, CPU)
    with pytest.raises(ModelFormatError, match="does not fit"):
        load_checkpoint(tmp_path, other)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFormatError, match="--overwrite"):
        load_checkpoint(tmp_path, objective)
