from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isosr_models.layers import use_statistics
from isosr_models.precision import native_precision
from isosr_models.restorers import NetworkRestorer
from isosr_models.unet import UNet3d
from isosr_models.unpadded import UnpaddedUNet3d

EDGE = 76


def make_network(width: int, *, residual: bool = True) -> UNet3d:
    """A network with random weights and running statistics."""
    torch.manual_seed(3)
    network = UNet3d(width, residual=residual)
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(network.head[0].weight, std=0.2)
    return network


@pytest.fixture(scope="module", params=[True, False], ids=["residual", "sigmoid"])
def case(request):
    """A network for inference, a volume, and what the padded network makes of it at once."""
    network = make_network(3, residual=request.param)
    unpadded = UnpaddedUNet3d(network)
    volume = torch.rand(1, 1, EDGE, EDGE, EDGE) * 1.2 - 0.1
    use_statistics(network, "frozen")
    with torch.no_grad():
        return unpadded, volume, network(volume)


kept = st.tuples(st.integers(26, EDGE - 27), st.integers(1, EDGE)).map(
    lambda pair: slice(pair[0], min(pair[0] + pair[1], EDGE - 26))
)


@settings(max_examples=60)
@given(keep=st.tuples(kept, kept, kept))
def test_any_part_equals_the_padded_network_there(case, keep):
    unpadded, volume, expected = case
    found = unpadded(volume, keep)
    wanted = expected[:, :, *keep]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 2e-6


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_part_does_not_depend_on_what_else_is_restored_with_it(precision):
    restorer = NetworkRestorer(make_network(4), "frozen", torch.device("cpu"), precision)
    volume = torch.rand(1, 1, EDGE, EDGE, EDGE)
    together = restorer(volume, (slice(28, 48),) * 3)
    block = volume[:, :, 8:, 4:, :]
    alone = restorer(block, (slice(30, 37), slice(26, 44), slice(31, 32)))
    assert (alone - together[:, :, 10:17, 2:20, 3:4]).abs().max() < 1e-5
    assert together.dtype == torch.float32


def test_parts_too_near_to_the_border_are_refused():
    unpadded = UnpaddedUNet3d(make_network(2))
    with pytest.raises(ValueError, match=r"26 voxels .* 28:44 of 68"):
        unpadded(torch.rand(1, 1, 68, 68, 68), (slice(28, 42), slice(28, 44), slice(28, 40)))


def test_bfloat16_is_near_float32_and_not_the_same():
    network, volume = make_network(8), torch.rand(1, 1, EDGE, EDGE, EDGE)
    keep = (slice(28, 48),) * 3
    exact, fast = (
        NetworkRestorer(network, "frozen", torch.device("cpu"), precision)(volume, keep)
        for precision in ("32", "bf16")
    )
    assert 1e-4 < (exact - fast).abs().max() < 0.05


def test_the_native_precision_is_what_the_processor_says(tmp_path, monkeypatch):
    from isosr_models import precision

    for flags, expected in (("avx2 avx512_bf16", "bf16"), ("avx2 avx512f", "32"), ("", "32")):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr(precision, "_CPU_INFO", file)
        precision._cpu_flags.cache_clear()
        assert native_precision(torch.device("cpu")) == expected
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "none")
    precision._cpu_flags.cache_clear()
    assert native_precision(torch.device("cpu")) == "32"
    precision._cpu_flags.cache_clear()
