"""Richardson-Lucy deconvolution: what it gives, and as a local function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from isosr_models.errors import ModelConfigError
from isosr_models.model_folder import load_restorer, read_description, save_model
from isosr_models.psf import learned_blur
from isosr_models.restorers import Restorer
from isosr_models.richardson_lucy import RichardsonLucy, RichardsonLucyRestorer

CPU = torch.device("cpu")
POINT = torch.ones(1, 1, 1)


def gaussian(*sigmas: float) -> torch.Tensor:
    """Return a kernel (z, y, x) that is cut at 3.5 standard deviations."""
    z, y, x = (
        torch.exp(-0.5 * (torch.arange(-r, r + 1) / max(s, 1e-9)) ** 2).double()
        for s, r in ((s, int(np.ceil(3.5 * s))) for s in sigmas)
    )
    kernel = z[:, None, None] * y[:, None] * x
    return kernel / kernel.sum()


AXIAL = RichardsonLucy(gaussian(1.5, 0, 0), POINT, 10)
FULL = RichardsonLucy(gaussian(1.2, 0.6, 0.6), gaussian(0.6, 0.6, 0.6), 4)
# Skewed, and with a tail along y.
SKEWED = RichardsonLucy(torch.rand(5, 9, 3, generator=torch.manual_seed(1)) ** 3, POINT, 3)
ALL = pytest.mark.parametrize("network", [AXIAL, FULL, SKEWED], ids=["axial", "full", "skewed"])


def scene(*shape: int) -> torch.Tensor:
    """Return bright spots of many heights on a dark, noisy background, the window at 0 and 1."""
    rng = np.random.default_rng(3)
    points = np.zeros(shape)
    points[tuple(rng.integers(0, n, 120) for n in shape)] = rng.lognormal(0, 1, 120)
    volume = ndimage.gaussian_filter(points, (1.8, 0.8, 0.8)) * 2
    return torch.from_numpy(rng.poisson(volume * 200 + 2) / 200.0).float()


@ALL
@pytest.mark.parametrize("block", [(12, 16, 40), (31, 9, 23)])
def test_blocks_equal_the_whole(network, block):
    halo = network.receptive_radius
    shape = (40, 24, 40)
    volume = scene(*(n + 2 * halo for n in shape))[None, None]
    with torch.no_grad():
        whole = network(volume)[0, 0]
    restorer = RichardsonLucyRestorer(network, CPU)
    assert isinstance(restorer, Restorer)
    for z in range(0, shape[0], block[0]):
        for y in range(0, shape[1], block[1]):
            for x in range(0, shape[2], block[2]):
                stop = [min(a + b, n) for a, b, n in zip((z, y, x), block, shape, strict=True)]
                pairs = list(zip((z, y, x), stop, strict=True))
                read = volume[:, :, *(slice(a, b + 2 * halo) for a, b in pairs)]
                keep = tuple(slice(halo, halo + b - a) for a, b in pairs)
                expected = whole[tuple(slice(a + halo, b + halo) for a, b in pairs)]
                assert (restorer(read, keep)[0, 0] - expected).abs().max() < 1e-5


def test_the_reach_is_what_is_needed_and_far_below_what_could_have_an_influence():
    assert AXIAL.reach[1:] == (0, 0)
    assert 25 < AXIAL.reach[0] < 35 < 2 * AXIAL.iterations * (AXIAL.psf.shape[0] // 2)
    volume = scene(160, 4, 4)[None, None]
    with torch.no_grad():
        whole = AXIAL(volume)[0, 0, 60:100]
        for halo, close in ((AXIAL.reach[0], True), (AXIAL.reach[0] // 3, False)):
            part = AXIAL(volume[:, :, 60 - halo : 100 + halo])[0, 0, halo : halo + 40]
            assert ((part - whole).abs().max() < 1e-5) == close


@ALL
def test_iterations_are_those_of_richardson_and_lucy(network):
    measured = scene(24, 20, 22).double().numpy()
    psf, target = network.psf.double().numpy(), network.target.double().numpy()
    estimate = measured
    for _ in range(network.iterations):
        blurred = ndimage.convolve(estimate, psf, mode="nearest")
        estimate = estimate * ndimage.correlate(measured / (blurred + 1e-5), psf, mode="nearest")
    expected = ndimage.convolve(estimate, target, mode="nearest")
    with torch.no_grad():
        found = network(torch.from_numpy(measured).float()[None, None])[0, 0].numpy()
    assert np.abs(found - expected).max() < 1e-4 * expected.max()


def test_a_point_gets_sharper_along_z_only_and_keeps_its_light():
    blurred = torch.zeros(1, 1, 41, 21, 21)
    blurred[0, 0, 15:26, 10, 10] = gaussian(1.5, 0, 0)[1:-1, 0, 0].float()
    blurred += 0.01
    with torch.no_grad():
        found = AXIAL(blurred)[0, 0]
    assert found.min() >= 0
    assert float(found.sum()) == pytest.approx(float(blurred.sum()), rel=1e-3)
    assert found[20, 10, 10] > 1.6 * blurred[0, 0, 20, 10, 10]
    assert found[10, 5, 5] == pytest.approx(0.01, rel=1e-2)


def test_what_lies_below_the_background_counts_as_nothing():
    volume = scene(16, 12, 12)[None, None]
    with torch.no_grad():
        expected = FULL(functional.relu(volume - 0.05))
        assert torch.equal(FULL(volume - 0.05), expected)
        assert torch.isfinite(FULL(torch.zeros_like(volume))).all()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(3, 4, 3), "odd lengths"),
        (torch.ones(3, 3), "three axes"),
        (torch.tensor([-1.0, 3.0, -1.0])[:, None, None], "the least value -1"),
        (torch.zeros(3, 3, 3), "the sum 0"),
        (torch.full((3, 3, 3), torch.nan), "the sum nan"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel, message):
    with pytest.raises(ModelConfigError, match=message):
        RichardsonLucy(kernel, POINT, 1)


def test_a_model_folder_keeps_it(tmp_path):
    save_model(
        tmp_path,
        {"generator": FULL},
        method="richardson-lucy",
        window_percentiles=(0.03, 99.97),
        training={},
        voxel_size=0.5,
    )
    known = read_description(tmp_path).network
    assert (known.kind, known.iterations, known.reach) == ("richardson-lucy", 4, FULL.reach)
    restorer = load_restorer(tmp_path, precision="bf16")
    halo = restorer.halo
    volume = scene(*[2 * halo + 10] * 3)[None, None]
    found = restorer(volume, (slice(halo, halo + 10),) * 3)
    with torch.no_grad():
        assert torch.allclose(
            found, FULL(volume)[:, :, *[slice(halo, halo + 10)] * 3], atol=1e-5, rtol=0
        )
    learned = learned_blur(tmp_path)
    assert learned.kind == "given"
    assert np.array_equal(learned.kernel, FULL.psf.numpy())


def test_work_and_memory_are_of_what_is_computed_and_not_of_what_is_read():
    axial, full = RichardsonLucyRestorer(AXIAL, CPU), RichardsonLucyRestorer(FULL, CPU)
    halo, kept = axial.halo, 64
    read = kept + 2 * halo
    parts, lengths = ([slice(halo, halo + kept)],) * 3, ([read],) * 3
    whole = [slice(0, read)], [slice(halo, halo + kept)], [slice(halo, halo + kept)]
    # Nothing is computed of the halo along y and x; twice the blocks are twice the work.
    assert axial.work(parts, lengths) == pytest.approx(axial.work(whole, lengths), rel=0.15)
    two = (parts[0] * 2, parts[1], parts[2]), ([read] * 2, lengths[1], lengths[2])
    assert axial.work(*two) == 2 * axial.work(parts, lengths)
    once, twice = (axial.memory((n, kept, kept), (n + 2 * halo, read, read)) for n in (64, 128))
    assert once < twice < 2 * once
    assert full.least_work < full.work(([slice(0, 9)],) * 3, ([9 + 2 * full.halo],) * 3) / 9**3
