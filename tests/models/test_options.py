from __future__ import annotations

import copy
import math

import pytest
import torch

from isosr_models.checkpoint import Progress, load_checkpoint, save_checkpoint
from isosr_models.layers import calibrate, use_statistics
from isosr_models.methods import create_objective
from isosr_models.model_folder import load_restorer, read_description, save_model
from isosr_models.patchgan import PROJECTED, draw_depth, take_planes
from isosr_models.unet import UNet3d

CPU = torch.device("cpu")
SMALL = {"width": 4, "planes": 2, "learning_rate": 1e-2}
FREEZING = [SMALL, {**SMALL, "average": 0.9}]


def _crops(count: int, seed: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 1, 32, 32, 32, generator=generator) for _ in range(count)]


def _state(objective) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in objective.modules().items()
        for key, value in module.state_dict().items()
    }


def _statistics(network) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items() if "running" in k}


def _same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize(("orientation", "axis"), [("xy", 0), ("xz", 1), ("yz", 2)])
def test_projections_are_maxima_of_slabs_that_lie_in_the_volume(orientation, axis):
    volume = torch.rand(2, 1, 8, 9, 10)
    length = volume.shape[2 + axis]
    indices = torch.tensor([0, 3, length - 1])
    planes = take_planes(volume, orientation, indices, depth=4).unflatten(0, (2, 3))
    for n in range(2):
        for plane, start in zip(planes[n, :, 0], (0, 3, length - 4), strict=True):
            slab = volume[n, 0].movedim(axis, 0)[start : start + 4]
            assert torch.equal(plane, slab.amax(0))
    whole = take_planes(volume, orientation, indices, depth=100)
    assert torch.equal(whole[0, 0], volume[0, 0].amax(axis))


def test_depths_are_drawn_from_the_whole_range():
    torch.manual_seed(0)
    drawn = {draw_depth() for _ in range(300)}
    assert drawn == set(range(PROJECTED[0], PROJECTED[1] + 1))


class _Recording(torch.nn.Module):
    """A discriminator that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, planes):
        self.seen.append(planes.detach().clone())
        return self.weight * planes


def test_only_sharp_critics_are_shown_projections():
    crop = _crops(1)[0]
    shown = {}
    for projections in (False, True):
        torch.manual_seed(0)
        objective = create_objective("ot-cyclegan", {**SMALL, "projections": projections}, CPU)
        for critics in (objective.sharp_critics, objective.blurred_critics):
            for orientation in critics:
                critics[orientation] = _Recording()
        objective.step(crop)
        shown[projections] = [
            torch.cat([s for c in critics.values() for s in c.seen]).mean()
            for critics in (objective.sharp_critics, objective.blurred_critics)
        ]
    # A plane of noise has a mean of 0.5, and the maximum of two to ten 0.67 to 0.91.
    assert shown[False][0] == pytest.approx(0.5, abs=0.02)
    assert 0.65 < shown[True][0] < 0.93
    assert shown[True][1] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shared", [False, True])
def test_the_axial_comparisons_share_their_critics_if_asked_to(shared):
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", {**SMALL, "shared_axial": shared}, CPU)
    names = ["xy", "axial"] if shared else ["xy", "xz", "yz"]
    for critics in (objective.sharp_critics, objective.blurred_critics):
        assert list(critics) == names
        for name in critics:
            critics[name] = _Recording()
    losses = objective.step(_crops(1)[0])
    assert all(math.isfinite(v) for v in losses.values())
    # Once for the generators, and twice for the critics.
    expected = [3, 6] if shared else [3, 3, 3]
    for critics in (objective.sharp_critics, objective.blurred_critics):
        assert [len(critic.seen) for critic in critics.values()] == expected


def test_a_shared_critic_is_kept_in_a_checkpoint(tmp_path):
    objective = create_objective("ot-cyclegan", {**SMALL, "shared_axial": True}, CPU)
    objective.step(_crops(1)[0])
    save_checkpoint(tmp_path, objective, Progress(iterations=1, seconds=0, run={}))
    other = create_objective("ot-cyclegan", {**SMALL, "shared_axial": True}, CPU)
    load_checkpoint(tmp_path, other)
    assert _same(_state(objective), _state(other))


@pytest.mark.parametrize("blur", ["deep-linear", "unet"])
def test_a_bottleneck_without_norms_is_trained_saved_and_folded(tmp_path, blur):
    torch.manual_seed(0)
    parameters = {**SMALL, "bottleneck_norm": False, "blur": blur}
    objective = create_objective("ot-cyclegan", parameters, CPU)
    for crop in _crops(2):
        objective.step(crop)
    network = objective.restorer
    assert not any(isinstance(m, torch.nn.InstanceNorm3d) for m in network.bottleneck.modules())
    calibrate(network, _crops(2, seed=5))
    save_model(
        tmp_path,
        objective.networks(),
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    assert read_description(tmp_path).network.bottleneck_norm is False
    volume, keep = torch.rand(1, 1, 64, 64, 64), (slice(28, 36),) * 3
    use_statistics(network, "frozen")
    with torch.no_grad():
        expected = network(volume)[:, :, *keep]
    assert torch.allclose(load_restorer(tmp_path)(volume, keep), expected, atol=1e-5)


def test_norms_of_the_bottleneck_make_a_difference():
    torch.manual_seed(0)
    normalised = UNet3d(4)
    plain = UNet3d(4, bottleneck_norm=False)
    state = normalised.state_dict()
    plain.load_state_dict({k: state[k] for k in plain.state_dict()})
    volume = _crops(1)[0]
    assert not torch.allclose(plain(volume), normalised(volume), atol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_checkpointing_changes_nothing_but_memory(frozen):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        parameters = {**SMALL, "gradient_checkpointing": checkpointing}
        objective = create_objective("ot-cyclegan", parameters, CPU)
        if frozen:
            objective.freeze_norm(_crops(2, seed=5))
        losses = [objective.step(crop) for crop in _crops(2)]
        results.append((losses, _state(objective)))
    (plain, expected), (checkpointed, found) = results
    for one, other in zip(plain, checkpointed, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    # Running statistics among them: they are tracked once a step.
    assert all(torch.allclose(v, expected[k], atol=1e-6) for k, v in found.items())


def test_gradient_checkpointing_keeps_no_activations_of_a_stage():
    kept = {}
    for checkpointing in (False, True):
        network = UNet3d(4)
        network.checkpointing = checkpointing
        sizes = []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(_crops(1)[0])
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.4 * kept[False]


@pytest.mark.parametrize("parameters", FREEZING, ids=["last", "average"])
def test_frozen_statistics_stay_and_weights_go_on(parameters):
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", parameters, CPU)
    for crop in _crops(3):
        objective.step(crop)
    assert not objective.norm_frozen
    calibration = _crops(2, seed=5)
    expected = copy.deepcopy(objective.restorer)
    calibrate(expected, calibration)
    objective.freeze_norm(calibration)
    assert objective.norm_frozen
    # G goes on from the restorer and its statistics, which are those of a calibration.
    assert _same(expected.state_dict(), objective.restorer.state_dict())
    assert _same(expected.state_dict(), objective.generator.state_dict())
    weights = expected.state_dict()["encoder1.0.0.weight"].clone()
    for crop in _crops(3, seed=6):
        objective.step(crop)
    for network in (objective.generator, objective.restorer):
        assert _same(_statistics(network), _statistics(expected))
        assert not torch.equal(network.state_dict()["encoder1.0.0.weight"], weights)


def test_a_frozen_network_is_trained_as_it_restores():
    """What a step gives to the blur is what a restorer with frozen statistics gives."""
    torch.manual_seed(0)
    objective = create_objective("ot-cyclegan", SMALL, CPU)
    for crop in _crops(3):
        objective.step(crop)
    objective.freeze_norm(_crops(2, seed=5))
    shown = []
    hook = objective.blur.register_forward_pre_hook(lambda _m, given: shown.append(given[0]))
    frozen = objective.restorer.folded()
    crop = _crops(1, seed=7)[0]
    objective.step(crop)
    hook.remove()
    with torch.no_grad():
        assert torch.allclose(shown[0], frozen(crop), atol=1e-5)


@pytest.mark.parametrize("parameters", FREEZING, ids=["last", "average"])
def test_a_frozen_training_goes_on_from_a_checkpoint(tmp_path, parameters):
    torch.manual_seed(0)
    straight = create_objective("ot-cyclegan", parameters, CPU)
    for crop in _crops(2):
        straight.step(crop)
    straight.freeze_norm(_crops(2, seed=5))
    straight.step(_crops(1, seed=6)[0])
    save_checkpoint(tmp_path, straight, Progress(iterations=3, seconds=0, run={}))
    resumed = create_objective("ot-cyclegan", parameters, CPU)
    load_checkpoint(tmp_path, resumed)
    assert resumed.norm_frozen
    random = torch.get_rng_state()
    for objective in (straight, resumed):
        torch.set_rng_state(random)
        for crop in _crops(2, seed=7):
            objective.step(crop)
    assert _same(_state(straight), _state(resumed))
