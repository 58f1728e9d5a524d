"""The residual network of planes, and the volumes that it restores slice by slice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_models.architectures import SliceResNetArchitecture, describe
from isosr_models.errors import ModelConfigError, ModelFormatError
from isosr_models.layers import calibrate
from isosr_models.model_folder import load_blur, load_restorer, read_description, save_model
from isosr_models.patchgan import PatchGAN2d
from isosr_models.resnet import ResNet2d
from isosr_models.restorers import Restorer
from isosr_models.slices import SliceNetwork, SliceRestorer

CPU = torch.device("cpu")
SHAPE = (9, 12, 15)


def _trained(width: int = 3, blocks: int = 0, residual: bool = True) -> SliceNetwork:
    """A network whose last layer is not at its start, where it adds nothing."""
    torch.manual_seed(0)
    plane = ResNet2d(width, blocks, residual=residual)
    torch.nn.init.normal_(plane.tail.weight, std=0.1)
    return SliceNetwork(plane).eval()


def test_it_is_that_of_the_publication():
    network = ResNet2d()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in layers] == [7, *[3] * (2 + 2 * 6 + 2), 7]
    assert [layer.padding_mode for layer in layers] == ["reflect", *["zeros"] * 16, "reflect"]
    assert {layer.out_channels for layer in layers[:-1]} == {64}
    assert (layers[0].in_channels, layers[-1].out_channels) == (1, 1)
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.2}
    kinds = {type(module).__name__ for module in network.modules()}
    assert not any("Norm" in kind or "Pool" in kind for kind in kinds)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 16 * (9 * 64 + 1) * 64 + 2 * 49 * 64 + 64 + 1


def test_its_discriminators_have_two_strided_layers():
    critic = PatchGAN2d(64, strided=2)
    layers = [m for m in critic.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [64, 128, 256, 1]
    assert [layer.stride[0] for layer in layers] == [2, 2, 1, 1]
    # As many pixels as a score sees, when borders are left out.
    assert critic(torch.zeros(1, 1, 64, 64)).shape[2:] == (14, 14)


def test_it_starts_as_the_identity_or_at_random():
    planes = 3 * torch.rand(2, 1, 20, 24) - 1
    assert torch.equal(ResNet2d(4, 2, residual=True)(planes), planes)
    assert (ResNet2d(4, 2)(planes) - planes).abs().mean() > 0.1


def test_activations_neither_vanish_nor_grow_with_its_depth():
    torch.manual_seed(0)
    planes = torch.rand(4, 1, 48, 48)
    with torch.no_grad():
        spreads = [float(ResNet2d(16, blocks)(planes).std()) for blocks in (1, 6, 12)]
    assert max(spreads) < 4 * min(spreads)


@pytest.mark.parametrize("blocks", [0, 1, 6])
def test_the_receptive_field_is_as_wide_as_it_says(blocks):
    """By gradients, in float64 and without reflection, which folds what is outside back in."""
    torch.manual_seed(0)
    network = ResNet2d(2, blocks).double()
    radius = network.receptive_radius
    assert radius == 10 + 2 * blocks
    side = 2 * radius + 9
    planes = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    network(planes)[0, 0, middle, middle].backward()
    seen = planes.grad[0, 0].abs().nonzero()
    assert int((seen - middle).abs().max()) == radius


starts = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))
lengths = st.tuples(*(st.integers(1, n) for n in SHAPE))


@settings(max_examples=12, deadline=None)
@given(start=starts, length=lengths)
def test_any_block_with_its_halo_equals_the_whole(start, length):
    network = _trained()
    halo = network.receptive_radius
    torch.manual_seed(1)
    volume = torch.rand(1, 1, *(n + 2 * halo for n in SHAPE))
    with torch.no_grad():
        whole = network(volume)
    stop = [min(a + n, most) for a, n, most in zip(start, length, SHAPE, strict=True)]
    block = volume[:, :, *(slice(a, b + 2 * halo) for a, b in zip(start, stop, strict=True))]
    keep = tuple(slice(halo, halo + b - a) for a, b in zip(start, stop, strict=True))
    found = SliceRestorer(network, CPU)(block, keep)
    wanted = whole[:, :, *(slice(a + halo, b + halo) for a, b in zip(start, stop, strict=True))]
    assert (found - wanted).abs().max() < 1e-5
    assert (wanted - block[:, :, *keep]).abs().max() > 1e-3


def test_a_smaller_halo_shows():
    network, less = _trained(), 4
    halo = network.receptive_radius
    volume = torch.rand(1, 1, *(n + 2 * halo for n in SHAPE))
    with torch.no_grad():
        whole = network(volume)[:, :, *(slice(halo, halo + n) for n in SHAPE)]
    block = volume[:, :, *(slice(halo - less, halo + n + less) for n in SHAPE)]
    found = SliceRestorer(network, CPU)(block, tuple(slice(less, less + n) for n in SHAPE))
    assert (found - whole).abs().max() > 1e-4


@pytest.mark.parametrize("residual", [True, False])
def test_a_model_folder_tells_what_it_holds(tmp_path, residual):
    network = _trained(4, 2, residual)
    kept = {"generator": network, "blur": ResNet2d(4, 2)}
    save_model(
        tmp_path / "model",
        kept,
        method="self-net",
        window_percentiles=(0.03, 99.97),
        training={},
    )
    described = read_description(tmp_path / "model").network
    assert described == SliceResNetArchitecture(width=4, blocks=2, residual=residual)
    restorer = load_restorer(tmp_path / "model")
    assert isinstance(restorer, Restorer)
    assert (restorer.halo, restorer.stride) == (14, 1)
    assert (described.receptive_radius, described.stride) == (14, 1)
    volume, keep = torch.rand(1, 1, 32, 33, 34), tuple(slice(14, n - 14) for n in (32, 33, 34))
    with torch.no_grad():
        expected = network(volume)[:, :, *keep]
    assert torch.allclose(restorer(volume, keep), expected, atol=1e-6)
    with pytest.raises(ModelFormatError, match="holds no blur"):
        load_blur(tmp_path / "model")


def test_networks_of_no_known_kind_are_refused():
    class Other(torch.nn.Module):
        pass

    with pytest.raises(ModelFormatError, match="generator is a Other"):
        describe(Other())
    with pytest.raises(ModelConfigError, match="width is 0"):
        ResNet2d(0)
    with pytest.raises(ModelConfigError, match="blocks is -1"):
        ResNet2d(4, -1)


def test_what_has_no_statistics_needs_no_crops_to_be_calibrated():
    def crops():
        raise AssertionError
        yield

    network = _trained().train()
    assert calibrate(network, crops()) == 0
    assert not network.training
