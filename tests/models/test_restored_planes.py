from __future__ import annotations

import numpy as np
import pytest
import torch

from isosr_models.configs import Degradation
from isosr_models.degradation import Noise, degrade, degrade_clean
from isosr_models.methods import create_objective
from isosr_models.restored_planes import RestoredPlanes
from isosr_models.self_blur import SelfBlur

CPU = torch.device("cpu")
KNOWN = Degradation(square_x=4.0, square_y=6.0, error=0.2, noise_gain=0.0, noise_floor=1e-4)
SMALL = {"width": 4, "planes": 2, "degradation": KNOWN}


def _objective(**change: float) -> SelfBlur:
    objective = create_objective("self-blur", {**SMALL, **change}, CPU)
    assert isinstance(objective, SelfBlur)
    return objective


def _numbered(depth: int, first: int = 0) -> torch.Tensor:
    """A crop whose planes are each of one value, which tells them apart."""
    return (first + torch.arange(depth).float())[:, None, None].expand(depth, 8, 12)


@pytest.mark.parametrize("neighbours", [0, 2])
def test_planes_come_from_the_middle_of_crops_with_their_neighbours(neighbours):
    planes = RestoredPlanes(neighbours)
    assert len(planes) == 0
    planes.add(_numbered(20))
    assert len(planes) == 1
    drawn = planes.draw(500)
    assert drawn.shape == (500, 1 + 2 * neighbours, 8, 12)
    values = drawn[:, :, 3, 5]
    assert sorted(set(values[:, neighbours].tolist())) == list(range(5, 15))
    offsets = torch.arange(-neighbours, neighbours + 1)
    assert torch.equal(values - values[:, neighbours, None], offsets.expand_as(values).float())


def test_the_newest_crop_takes_the_place_of_the_oldest():
    planes = RestoredPlanes(1)
    for number in range(11):
        planes.add(_numbered(64, 100 * number))
    assert len(planes) == 8
    of = (planes.draw(4000)[:, :, 0, 0] // 100).int()
    assert set(of[:, 1].tolist()) == set(range(3, 11))
    assert torch.equal(of[:, 0], of[:, 2])


def test_crops_of_another_size_begin_anew():
    planes = RestoredPlanes()
    planes.add(_numbered(20))
    planes.add(torch.ones(8, 16, 16))
    assert len(planes) == 1
    assert torch.equal(planes.draw(3), torch.ones(3, 1, 16, 16))


def test_what_was_kept_is_there_again_with_the_state():
    planes, again = RestoredPlanes(2), RestoredPlanes(2)
    planes.add(torch.rand(20, 8, 12))
    again.load_state_dict(planes.state_dict())
    assert len(again) == 1
    torch.manual_seed(1)
    drawn = planes.draw(30)
    torch.manual_seed(1)
    assert torch.equal(again.draw(30), drawn)
    assert not any(buffer.is_floating_point() for buffer in planes.buffers())


def test_most_of_a_training_learns_from_what_an_average_of_its_weights_has_restored():
    torch.manual_seed(0)
    objective = _objective(neighbours=1)
    planes, teacher = (objective.modules()[name] for name in ("planes", "teacher"))
    crops = torch.rand(2, 1, 16, 32, 32)
    for share, count in ((0.0, 0), (0.14, 0), (0.15, 1), (0.3, 2), (0.3, 3), (0.3, 4)):
        objective.set_share(share)
        with torch.no_grad():
            restored = teacher.module(crops[:1])[0, 0]
        objective.step(crops)
        assert len(planes) == count
    # Of the last one, as the average was before that step: planes 4 to 12 and their neighbours.
    drawn = planes.draw(500)
    for plane in range(4, 12):
        distance = (drawn - restored[plane - 1 : plane + 2]).abs().amax(dim=(1, 2, 3))
        assert distance.min() < 2e-3
    # Later ones are restored now and then only.
    added = int(planes.state_dict()["_added"])
    for _ in range(40):
        objective.step(crops)
    assert added < int(planes.state_dict()["_added"]) < added + 20
    ours = torch.cat([weights.flatten() for weights in objective.restorer.parameters()])
    average = torch.cat([weights.flatten() for weights in teacher.module.parameters()])
    assert 0 < (ours - average).abs().max() < 0.1


def test_some_share_of_the_steps_learns_from_measured_planes_to_the_end():
    crops = torch.rand(1, 1, 16, 32, 32)
    restored = {}
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        objective = _objective(neighbours=1, measured=share)
        seen: list[torch.Tensor] = []
        objective.restorer.plane.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0])
        )
        objective.set_share(0.5)
        for _ in range(60):
            objective.step(crops)
        # Neighbours of a measured plane are that plane again.
        steps = [given for given in seen if len(given) == 2]
        assert len(steps) == 60
        restored[share] = np.mean([not torch.equal(s[:, 0], s[:, 1]) for s in steps])
    assert restored[0.0] == 1
    assert restored[0.5] == pytest.approx(0.5, abs=0.2)
    assert restored[1.0] == 0


def test_neighbours_say_nothing_until_they_are_restored():
    torch.manual_seed(0)
    objective = _objective(neighbours=2)
    plane = objective.restorer.plane
    before = plane.encoder1[0].weight.detach().clone()
    for share, is_used in ((0.0, False), (0.1, False), (0.2, True)):
        objective.set_share(share)
        for _ in range(3):
            objective.step(torch.rand(1, 1, 16, 32, 32))
        changed = (plane.encoder1[0].weight != before).flatten(2).any(dim=2).any(dim=0)
        assert changed.tolist() == [True, *[is_used] * 4]
        assert plane.sees_neighbours == is_used
    # From here on they are always restored, as after --init from a trained model.
    added = len(objective.modules()["planes"])
    objective.set_share(0.0)
    for _ in range(4):
        objective.step(torch.rand(1, 1, 16, 32, 32))
    assert len(objective.modules()["planes"]) > added


def test_without_noise_of_their_own_planes_get_all_of_it():
    torch.manual_seed(0)
    count, z_step = 60, 3.0
    planes = torch.full((count, 90, 40), 2.0)
    sigma, phase = torch.full((count,), 2.0), torch.zeros(count)
    gain = torch.linspace(0.5, 3.0, count)
    noise = Noise(gain=0.01, floor=0.002)
    pair = degrade_clean(planes, sigma, phase, z_step, noise, gain)
    assert torch.equal(pair.sharp[:, 0], gain[:, None, None] * planes)
    # At samples, between which it is interpolated.
    measured = pair.blurred[:, 0, ::3]
    for plane, factor in zip(measured, gain.tolist(), strict=True):
        assert plane.mean() == pytest.approx(2 * factor, rel=0.02)
        assert plane.var() == pytest.approx(0.02 * factor + 0.002, rel=0.25)
    silent = Noise(0.0, 0.0)
    bumps = torch.rand(count, 90, 40)
    clean, usual = (
        make(bumps, sigma, phase, z_step, silent, gain) for make in (degrade_clean, degrade)
    )
    assert torch.allclose(clean.blurred, usual.blurred, atol=1e-6)
