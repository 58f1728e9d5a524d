"""Where patches are cut from, and lateral ones that are made as coarse as axial ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from isosr_models.patches import coarsened, draw_patches, noise_of
from isosr_pipeline.isotropic import locate

SHAPE = (12, 14, 16)
SIDE = 9


@pytest.fixture
def crops():
    """Voxels that tell their own place: crop, z, y and x as digits."""
    places = np.indices((2, *SHAPE)).astype(np.float64)
    return torch.from_numpy(np.tensordot([1e6, 1e4, 1e2, 1.0], places, 1))[:, None]


def _steps(patch):
    """Return the differences along height and width; places differ by 1 in x, 1e2 in y ..."""
    down, right = patch[1:] - patch[:-1], patch[:, 1:] - patch[:, :-1]
    assert len(down.unique()) == len(right.unique()) == 1
    return float(down[0, 0]), float(right[0, 0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("lateral", {(1e2, 1.0), (1.0, 1e2)}), ("axial", {(1e4, 1.0), (1e4, 1e2)})],
)
def test_patches_lie_in_planes_of_all_crops(crops, kind, expected):
    torch.manual_seed(0)
    patches = draw_patches(crops, kind, 60, SIDE)
    assert patches.shape == (60, 1, SIDE, SIDE)
    assert {_steps(patch) for patch in patches[:, 0]} == expected
    assert {int(patch[0, 0, 0] // 1e6) for patch in patches} == {0, 1}
    assert torch.isin(patches, crops).all()


def test_patches_reach_all_borders(crops):
    torch.manual_seed(0)
    seen = draw_patches(crops[:1], "axial", 2000, SIDE).unique()
    assert len(seen) == crops[0].numel()


def test_patches_are_those_of_the_seed(crops):
    torch.manual_seed(3)
    first = draw_patches(crops, "axial", 4, SIDE)
    assert not torch.equal(draw_patches(crops, "axial", 4, SIDE), first)
    torch.manual_seed(3)
    assert torch.equal(draw_patches(crops, "axial", 4, SIDE), first)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_coarse_patches_are_what_reading_coarse_planes_gives(factor):
    """The interpolation is that of a store's planes on the isotropic grid, which `locate` finds."""
    torch.manual_seed(0)
    columns = torch.rand(10 * factor + 1, 1)
    planes = columns[::factor, 0].numpy()
    below, share = locate(np.arange(len(columns)), 1 / factor, len(planes))
    above = np.minimum(below + 1, len(planes) - 1)
    stored = planes[below] * (1 - share) + planes[above] * share
    found = [coarsened(columns[None, None], factor)[0, 0, :, 0].numpy() for _ in range(40)]
    off = [np.abs(one - stored).max() for one in found]
    assert min(off) < 1e-6
    assert len(np.unique(np.round(off, 4))) == factor


@pytest.mark.parametrize("factor", [1.1, 2.5, 3.3, 40.0])
def test_coarse_patches_keep_rows_that_are_the_factor_apart(factor):
    torch.manual_seed(0)
    patches = torch.rand(2, 1, 90, 3)
    coarse = coarsened(patches, factor)
    kept = (coarse == patches).all(3).all(1).all(0).nonzero().flatten()
    steps = kept.diff()
    assert {int(step) for step in steps} <= {int(np.floor(factor)), int(np.ceil(factor))}
    assert float(steps.double().mean()) == pytest.approx(factor, rel=0.05)


def test_a_ramp_stays_a_ramp_and_what_is_sampled_finely_stays_as_it_is():
    torch.manual_seed(0)
    ramp = torch.arange(32.0)[None, None, :, None].expand(2, 1, 32, 5)
    # But at the borders, where the ramp turns back.
    assert torch.allclose(coarsened(ramp, 4.4)[:, :, 5:-5], ramp[:, :, 5:-5], atol=1e-5)
    assert coarsened(ramp, 1.0) is ramp
    assert coarsened(ramp, 0.5) is ramp


@pytest.mark.parametrize("level", [0.003, 0.05])
def test_noise_is_as_strong_as_that_of_each_patch(level):
    """Whatever structure there is, resolved as microscopes do: a PSF of 2.5 voxels' width."""
    rng = np.random.default_rng(0)
    structure = gaussian_filter(rng.random((4, 1, 96, 96)) > 0.99, (0, 0, 1.1, 1.1), output=float)
    levels = level * np.array([1.0, 2.0, 4.0, 0.0])[:, None, None, None]
    patches = structure + levels * rng.standard_normal(structure.shape)
    torch.manual_seed(0)
    noise = noise_of(torch.from_numpy(patches.astype(np.float32)))
    found = noise.flatten(1).std(dim=1).numpy()
    assert found[:3] == pytest.approx(levels.ravel()[:3], rel=0.15)
    assert found[3] < 0.002
    assert abs(np.corrcoef(noise[0].ravel(), patches[0].ravel())[0, 1]) < 0.05
