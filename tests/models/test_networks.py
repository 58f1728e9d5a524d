from __future__ import annotations

import pytest
import torch

from isosr_models.deep_linear import RADIUS, DeepLinear3d
from isosr_models.errors import ModelConfigError
from isosr_models.layers import calibrate, use_statistics
from isosr_models.patchgan import MIN_PLANE, PatchGAN2d, draw_planes, take_planes
from isosr_models.unet import UNet3d


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _randomise_statistics(network: UNet3d) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)


def test_parameter_counts_are_those_of_the_publication():
    assert _parameters(UNet3d(64)) == 7_077_251
    assert _parameters(DeepLinear3d(64)) == 647_120


def test_the_discriminator_is_that_of_the_publication():
    """Three strided layers of width 64, 128, 256, one of 512, and one map."""
    critic = PatchGAN2d(64)
    layers = [m for m in critic.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [64, 128, 256, 512, 1]
    assert [layer.in_channels for layer in layers] == [1, 64, 128, 256, 512]
    assert [layer.stride for layer in layers] == [(2, 2)] * 3 + [(1, 1)] * 2
    assert {layer.kernel_size for layer in layers} == {(4, 4)}
    assert {layer.padding for layer in layers} == {(1, 1)}
    between = [type(m).__name__ for m in critic.layers if not isinstance(m, torch.nn.Conv2d)]
    assert between == ["LeakyReLU", *["InstanceNorm2d", "LeakyReLU"] * 3]
    slopes = {m.negative_slope for m in critic.modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.2}
    # 16 weights for each pair of channels, and a bias for each that comes out.
    pairs = 1 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1
    assert _parameters(critic) == 16 * pairs + 64 + 128 + 256 + 512 + 1 == 2_762_689


def test_widths_too_small_are_refused():
    with pytest.raises(ModelConfigError, match="width is 0"):
        UNet3d(0)
    with pytest.raises(ModelConfigError, match="width is 3"):
        DeepLinear3d(3)


@pytest.mark.parametrize("offset", range(4))
def test_the_receptive_field_reaches_26_voxels_and_no_further(offset):
    """Measured by gradients: an output voxel depends on no input beyond the declared radius."""
    torch.manual_seed(0)
    network = UNet3d(2).double()
    _randomise_statistics(network)
    # Average pooling and no rectifier: every path of the network carries a gradient.
    network.pool = torch.nn.AvgPool3d(2)
    use_statistics(network, "frozen")
    for module in list(network.modules()):
        if isinstance(module, torch.nn.Sequential) and isinstance(module[-1], torch.nn.ReLU):
            module[-1] = torch.nn.Identity()
    volume = torch.rand((1, 1, 64, 8, 8), dtype=torch.double, requires_grad=True)
    position = 30 + offset
    network(volume)[0, 0, position, 4, 4].backward()
    reached = volume.grad[0, 0].abs().amax(dim=(1, 2)).nonzero().flatten()
    reach = max(position - int(reached[0]), int(reached[-1]) - position)
    assert reach <= UNet3d.receptive_radius == 26
    # The reach depends on where in a pooling cell the voxel lies; the worst one needs it all.
    assert reach == {0: 26, 1: 24, 2: 24, 3: 26}[position % 4]


@pytest.mark.parametrize("residual", [False, True])
def test_shapes_are_kept_and_stride_is_needed(residual):
    network = UNet3d(2, residual=residual)
    assert network(torch.rand(1, 1, 32, 36, 40)).shape == (1, 1, 32, 36, 40)
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 1, 34, 36, 40))


def test_the_residual_start_is_the_identity():
    volume = 3 * torch.rand(1, 1, 32, 32, 32)
    assert torch.equal(UNet3d(4, residual=True)(volume), volume)
    blur = DeepLinear3d(4, residual=True)
    assert torch.allclose(blur(volume), volume, atol=1e-5)


def test_folded_norms_change_nothing():
    torch.manual_seed(1)
    network = UNet3d(4)
    _randomise_statistics(network)
    folded = network.folded()
    use_statistics(network, "frozen")
    volume = torch.rand(1, 1, 32, 32, 32)
    assert not any(isinstance(m, torch.nn.InstanceNorm3d) for m in folded.modules())
    with torch.no_grad():
        assert torch.allclose(folded(volume), network(volume), atol=1e-6)


def test_block_statistics_are_those_of_the_input_and_leave_the_running_ones():
    torch.manual_seed(1)
    network = UNet3d(4)
    volume = torch.rand(1, 1, 32, 32, 32)
    network.train()
    expected = network(volume).detach()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    use_statistics(network, "block")
    assert torch.allclose(network(volume), expected)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_calibration_is_the_mean_over_samples():
    torch.manual_seed(1)
    network = UNet3d(2)
    samples = [torch.rand(1, 1, 32, 32, 32) for _ in range(3)]
    first = network.encoder1[0]
    expected = torch.stack([first[0](s).mean(dim=(0, 2, 3, 4)) for s in samples]).mean(dim=0)
    assert calibrate(network, samples) == 3
    assert torch.allclose(first[1].running_mean, expected, atol=1e-5)
    with torch.no_grad():
        alone = network(samples[0])
        _ = network(samples[1])
        assert torch.equal(network(samples[0]), alone)


@pytest.mark.parametrize("residual", [False, True])
def test_one_composed_kernel_equals_the_layers_away_from_the_border(residual):
    torch.manual_seed(2)
    blur = DeepLinear3d(8, residual=residual).double()
    torch.nn.init.normal_(blur.layers[-1].weight)
    volume = torch.rand(1, 1, 30, 34, 40, dtype=torch.double)
    inner = (..., *[slice(RADIUS, -RADIUS)] * 3)
    expected = blur.layered(volume)[inner]
    assert (blur(volume)[inner] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_psf_is_the_response_to_a_point():
    torch.manual_seed(2)
    blur = DeepLinear3d(8)
    point = torch.zeros(1, 1, 31, 31, 31)
    point[..., 15, 15, 15] = 1
    response = blur.layered(point)[0, 0, 9:22, 9:22, 9:22]
    assert torch.allclose(blur.psf(), response, atol=1e-6)


def test_gradients_reach_every_weight_of_the_blur():
    blur = DeepLinear3d(8)
    blur(torch.rand(1, 1, 16, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in blur.parameters())


def test_the_smallest_plane_leaves_a_prediction_map():
    critic = PatchGAN2d(4)
    assert critic(torch.rand(3, 1, MIN_PLANE, MIN_PLANE)).shape == (3, 1, 2, 2)
    assert critic(torch.rand(3, 1, 64, 48)).shape == (3, 1, 6, 4)


@pytest.mark.parametrize(("orientation", "axis"), [("xy", 0), ("xz", 1), ("yz", 2)])
def test_planes_are_those_of_the_volume(orientation, axis):
    volume = torch.rand(1, 1, 5, 6, 7)
    indices = draw_planes(volume.shape, orientation, 4)
    assert len(set(indices.tolist())) == 4
    planes = take_planes(volume, orientation, indices)
    for plane, index in zip(planes, indices, strict=True):
        assert torch.equal(plane[0], volume[0, 0].select(axis, int(index)))
    assert len(draw_planes(volume.shape, orientation, 100)) == volume.shape[2 + axis]
    other = torch.rand(1, 1, 5, 6, 7)
    both = take_planes(torch.cat((volume, other)), orientation, indices)
    assert torch.equal(both, torch.cat((planes, take_planes(other, orientation, indices))))
