from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from isosr_models.degradation import Noise, Pair, degrade, reflect_ends

NONE = Noise(0.0, 0.0)


def _ones(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.fixture
def planes():
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.random((3, 60, 40)), (0, 1, 1)).astype(np.float32)


def test_without_noise_it_is_a_gaussian_along_the_first_axis(planes):
    sigmas = (1.0, 2.5, 4.0)
    found = degrade(
        torch.from_numpy(planes), _ones(*sigmas), _ones(0, 0, 0), 1.0, NONE, _ones(1, 1, 1)
    )
    assert torch.equal(found.sharp[:, 0], torch.from_numpy(planes))
    for plane, sigma, blurred in zip(planes, sigmas, found.blurred[:, 0].numpy(), strict=True):
        expected = ndimage.gaussian_filter1d(plane, sigma, axis=0, mode="reflect", truncate=5)
        np.testing.assert_allclose(blurred, expected, atol=2e-5)


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_coarse_sampling_is_interpolated_linearly(planes, phase):
    """As the isotropic view of a store is: planes between two measured ones are their mean."""
    plane = torch.from_numpy(planes[:1])
    fine = degrade(plane, _ones(1.5), _ones(0), 1.0, NONE, _ones(1)).blurred[0, 0].numpy()
    coarse = degrade(plane, _ones(1.5), _ones(phase), 3.0, NONE, _ones(1)).blurred[0, 0].numpy()
    measured = np.arange(phase, 60, 3)
    np.testing.assert_allclose(coarse[measured], fine[measured], atol=1e-6)
    inner = np.arange(measured[0], measured[-1] + 1)
    for x in (0, 17):
        expected = np.interp(inner, measured, fine[measured, x])
        np.testing.assert_allclose(coarse[inner, x], expected, atol=1e-6)


def test_a_step_that_is_no_whole_number_keeps_what_is_wide(planes):
    plane = torch.from_numpy(planes[:1])
    fine = degrade(plane, _ones(3.0), _ones(0), 1.0, NONE, _ones(1)).blurred
    coarse = degrade(plane, _ones(3.0), _ones(0.5), 2.5, NONE, _ones(1)).blurred
    assert (fine - coarse).square().mean().sqrt() < 0.1 * fine.std()


def _noisy(count: int, level: float, noise: Noise) -> torch.Tensor:
    spread = (noise.gain * level + noise.floor) ** 0.5
    return level + spread * torch.randn(count, 128, 64)


@pytest.mark.parametrize("z_step", [1.0, 3.0])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_the_noise_is_that_of_a_measured_plane(z_step, gain):
    """White from sample to sample, and as strong as the intensity after the gain has it."""
    torch.manual_seed(0)
    noise, level = Noise(0.02, 0.001), 0.5
    planes = _noisy(24, level, noise)
    many = torch.full((24,), 2.0)
    found = degrade(planes, many, torch.zeros(24), z_step, noise, torch.full((24,), gain))
    samples = found.blurred[:, 0, :: int(z_step)] - gain * level
    expected = noise.gain * gain * level + noise.floor
    assert samples.var().item() == pytest.approx(expected, rel=0.25 if gain > 1 else 0.08)
    neighbours = (samples[:, 1:] * samples[:, :-1]).mean() / samples.var()
    assert abs(neighbours) < (0.2 if gain > 1 else 0.06)


@pytest.mark.parametrize("z_step", [1.0, 3.0])
def test_blurred_and_sharp_planes_share_little_noise(z_step):
    """Their covariance would be that of white noise and its blur, were nothing taken off."""
    torch.manual_seed(0)
    noise, level, sigma = Noise(0.02, 0.001), 0.5, 2.0
    planes = _noisy(48, level, noise)
    many = torch.full((48,), sigma)
    found = degrade(planes, many, torch.zeros(48), z_step, noise, torch.ones(48))
    blurred, sharp = found.blurred - level, found.sharp - level
    variance = planes.var().item()
    own = (planes - level)[:, None]
    spectrum = torch.fft.rfft(blurred, dim=2)

    def shared(other: torch.Tensor) -> float:
        """Sum the covariance over frequencies, in units of the variance at one."""
        power = (spectrum * torch.fft.rfft(other, dim=2).conj()).real
        return float(power.mean(dim=(0, 1, 3)).sum() / variance / blurred.shape[2])

    assert shared(own) > 10
    assert abs(shared(sharp)) < 0.3 * shared(own)
    assert sharp.var().item() < 1.7 * variance


def test_noise_follows_the_intensity_and_is_the_same_for_one_seed():
    planes = torch.cat([torch.full((1, 64, 64), 0.1), torch.full((1, 64, 64), 0.9)])
    noise = Noise(0.01, 0.0)
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(degrade(planes, _ones(4, 4), _ones(0, 0), 1.0, noise, _ones(1, 1)).blurred)
    assert torch.equal(*found)
    dark, bright = found[0].var(dim=(1, 2, 3)).tolist()
    assert bright / dark == pytest.approx(9, rel=0.2)


@pytest.mark.parametrize(("z_step", "length"), [(1.0, 40), (3.0, 64), (2.5, 60), (7.0, 20)])
def test_planes_that_end_go_on_as_their_reflection(z_step, length):
    torch.manual_seed(0)
    count, width = 200, 48
    rows = torch.arange(length).float()[:, None].expand(length, width)
    columns = torch.arange(width).float().expand(length, width)
    sharp = rows.expand(count, 1, length, width)
    phase = torch.randint(1000, (count,)) % z_step
    blurred = torch.stack((rows, columns)).expand(count, 2, length, width)
    found = reflect_ends(Pair(blurred, sharp), phase, z_step, 1.0)
    assert torch.equal(found.sharp[:, 0], found.blurred[:, 0])
    ends = [_end(row) for row in found.blurred[:, 0, :, 0].int()]
    assert {end < length / 2 for end in ends} == {True, False}
    assert all(min(end, length - 1 - end) <= max(length / 4, z_step) for end in ends)
    for end, first in zip(ends, phase.tolist(), strict=True):
        # Where z was sampled, or next to it; a reflection at the outermost voxel changes nothing.
        sample = round((end - first) / z_step) * z_step + first
        assert abs(sample - end) <= 0.5 or end == 0
    ends = [_end(column) for column in found.blurred[:, 1, 0].int()]
    assert {min(end, width - 1 - end) for end in ends} == set(range(width // 4 - 1))


def _end(places: torch.Tensor) -> int:
    """Return about which place of an axis what is beyond it is reflected."""
    numbers = torch.arange(len(places))
    for end in range(len(places)):
        for reflected in (end + (numbers - end).abs(), end - (numbers - end).abs()):
            if torch.equal(places, reflected.int()):
                return end
    raise AssertionError(f"{places.tolist()} is no reflection")


@pytest.mark.parametrize("z_step", [9.0, 16.0, 40.0])
def test_planes_whose_samples_lie_far_apart_end_where_they_can(z_step):
    torch.manual_seed(0)
    numbers = torch.arange(16).float()
    sharp = numbers[:, None].expand(100, 1, 16, 16)
    phase = torch.randint(1000, (100,)) % z_step
    found = reflect_ends(Pair(sharp, sharp), phase, z_step, 1.0).sharp
    ends = [_end(row) for row in found[:, 0, :, 0].int()]
    # Some lie where the rest of the plane is longer than what is beyond.
    assert 0 in ends
    assert max(ends) < 16
    turned = sharp.transpose(2, 3)
    found = reflect_ends(Pair(turned, turned), phase, z_step, 1.0).sharp
    assert len({_end(column) for column in found[:, 0, 0].int()}) > 2


def test_as_many_planes_end_as_should():
    torch.manual_seed(0)
    sharp = torch.rand(2000, 1, 64, 64)
    pair = Pair(sharp, sharp)
    assert torch.equal(reflect_ends(pair, torch.zeros(2000), 1.0, 0.0).sharp, sharp)
    found = reflect_ends(pair, torch.zeros(2000), 1.0, 0.3).sharp
    # One end in fifteen is the outermost voxel, of which nothing is seen.
    changed = (found != sharp).flatten(1).any(dim=1).float().mean()
    assert float(changed) == pytest.approx(1 - (1 - 0.3 * 14 / 15) ** 2, abs=0.04)
