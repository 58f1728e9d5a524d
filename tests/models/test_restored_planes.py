from __future__ import annotations

import pytest
import torch

from isosr_models.configs import Degradation
from isosr_models.degradation import Noise, degrade, degrade_clean
from isosr_models.methods import create_objective
from isosr_models.restored_planes import RestoredPlanes

CPU = torch.device("cpu")
KNOWN = Degradation(square_x=4.0, square_y=6.0, error=0.2, noise_gain=0.0, noise_floor=1e-4)


def _numbered(depth: int, first: int = 0) -> torch.Tensor:
    """A crop whose planes are each of one value, which tells them apart."""
    return (first + torch.arange(depth).float())[:, None, None].expand(depth, 8, 12)


def test_planes_come_from_the_middle_of_crops_and_none_twice():
    planes = RestoredPlanes()
    assert len(planes) == 0
    planes.add(_numbered(20))
    assert len(planes) == 10
    drawn = planes.draw(500)
    assert drawn.shape == (500, 8, 12)
    assert sorted(set(drawn[:, 3, 5].tolist())) == list(range(5, 15))


def test_the_newest_planes_take_the_place_of_the_oldest():
    planes = RestoredPlanes()
    for number in range(20):
        planes.add(_numbered(64, 100 * number))
    assert len(planes) == 256
    of = set((planes.draw(4000)[:, 0, 0] // 100).tolist())
    assert of == set(range(4, 20))


def test_planes_of_another_size_begin_anew():
    planes = RestoredPlanes()
    planes.add(_numbered(20))
    planes.add(torch.ones(8, 16, 16))
    assert len(planes) == 4
    assert torch.equal(planes.draw(3), torch.ones(3, 16, 16))


def test_what_was_kept_is_there_again_with_the_state():
    planes, again = RestoredPlanes(), RestoredPlanes()
    planes.add(torch.rand(20, 8, 12))
    again.load_state_dict(planes.state_dict())
    assert len(again) == 10
    torch.manual_seed(1)
    drawn = planes.draw(30)
    torch.manual_seed(1)
    assert torch.equal(again.draw(30), drawn)
    assert not any(buffer.is_floating_point() for buffer in planes.buffers())


def test_the_second_half_of_a_training_learns_from_what_it_has_restored():
    torch.manual_seed(0)
    parameters = {"width": 4, "planes": 2, "degradation": KNOWN}
    objective = create_objective("self-blur", parameters, CPU)
    planes = objective.modules()["planes"]
    crops = torch.rand(2, 1, 16, 32, 32)
    for share, count in ((0.0, 0), (0.49, 0), (0.5, 16)):
        objective.set_share(share)
        objective.step(crops)
        assert len(planes) == count
    # Later crops are restored now and then, by the network as it is.
    for _ in range(40):
        objective.step(crops + 10)
    assert 16 < len(planes) < 256
    assert 1 < planes.draw(2000).mean() < 10
    with torch.no_grad():
        restored = objective.restorer(crops + 10)[:, 0, 4:12].reshape(-1, 32, 32)
    kept = planes.draw(2000)
    nearest = min(float((kept - plane).abs().amax(dim=(1, 2)).min()) for plane in restored)
    assert nearest < 0.5


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
