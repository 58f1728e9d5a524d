"""What models know of the blur, as functions that blur block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from isosr_models.deep_linear import DeepLinear3d
from isosr_models.errors import ModelFormatError
from isosr_models.model_folder import save_model
from isosr_models.reblurring import KernelBlur, kernel_reblur, load_reblur, residual_kernel
from isosr_models.resnet import ResNet2d
from isosr_models.richardson_lucy import RichardsonLucy
from isosr_models.slices import SliceNetwork
from isosr_models.unet import UNet3d

CPU = torch.device("cpu")


def gaussian(*sigmas):
    """A Gaussian kernel (z, y, x) with a sum of 1."""
    profiles = []
    for sigma in sigmas:
        radius = int(np.ceil(4 * sigma))
        profiles.append(np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2))
    z, y, x = profiles
    kernel = z[:, None, None] * y[:, None] * x
    return torch.from_numpy(kernel / kernel.sum())


@pytest.fixture
def save(tmp_path):
    def write(run=None, **networks):
        save_model(
            tmp_path / "model",
            networks,
            method="any",
            window_percentiles=(0.03, 99.97),
            training={"run": run or {}},
            voxel_size=0.5,
        )
        return tmp_path / "model"

    return write


def wrapped(volume, kernel):
    """Convolve, with what leaves a volume on one side coming back on the other."""
    placed = np.zeros_like(volume)
    placed[tuple(slice(0, n) for n in kernel.shape)] = kernel.numpy()
    placed = np.roll(placed, [-(n // 2) for n in kernel.shape], axis=(0, 1, 2))
    return np.fft.irfftn(
        np.fft.rfftn(volume) * np.fft.rfftn(placed), s=volume.shape, axes=(0, 1, 2)
    )


def applied(function, volume, halo):
    """Apply a function to a volume that is reflected beyond its border, as in one block."""
    padded = np.pad(volume, halo, mode="reflect")[None, None]
    keep = tuple(slice(halo, halo + n) for n in volume.shape)
    return function(torch.from_numpy(padded), keep)[0, 0].numpy()


@pytest.mark.parametrize("shape", [(7, 1, 1), (1, 5, 3), (5, 3, 7), (1, 1, 1)])
def test_a_kernel_is_a_convolution(shape):
    rng = np.random.default_rng(0)
    kernel, volume = rng.random(shape), rng.random((11, 14, 9), np.float32)
    blur = KernelBlur(torch.from_numpy(kernel), CPU)
    expected = ndimage.convolve(volume.astype(float), kernel, mode="mirror")
    assert blur.halo == max(shape) // 2
    # With a margin beyond what is needed, as blocks on a stride have.
    for margin in (0, 3):
        assert np.allclose(applied(blur, volume, blur.halo + margin), expected, atol=1e-5)


def test_what_is_left_of_a_gaussian_is_a_gaussian():
    found = residual_kernel(gaussian(3.0, 1.2, 1.2), gaussian(1.2, 1.2, 1.2)).double()
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    places = torch.arange(found.shape[0]) - found.shape[0] // 2
    axial, lateral = found.sum(dim=(1, 2)), found.sum(dim=(0, 2))
    assert float((axial * places**2).sum()) == pytest.approx(9.0 - 1.44, rel=0.01)
    # Along y nothing is left but a point, in its band.
    assert int(lateral.argmax()) == len(lateral) // 2
    # White noise has all frequencies; wrapped around, it has no border.
    volume = np.random.default_rng(2).random((64, 48, 48))
    aimed, seen = (wrapped(volume, gaussian(z, 1.2, 1.2)) for z in (1.2, 3.0))
    again = wrapped(aimed, found)
    assert np.sqrt(((again - seen) ** 2).mean()) < 0.02 * (aimed - seen).std()
    assert residual_kernel(gaussian(3.0, 1.0, 1.0), torch.ones(1, 1, 1)).shape == (25, 9, 9)


def test_the_psf_of_a_deconvolution_is_loaded(save):
    psf, target = gaussian(2.0, 1.0, 1.0), gaussian(1.0, 1.0, 1.0)
    network = RichardsonLucy(psf, target, 2)
    found = load_reblur(save(generator=network), CPU)
    assert not found.coarse
    assert torch.allclose(torch.from_numpy(found.response), residual_kernel(psf, target), atol=1e-6)


def test_a_deep_linear_blur_is_its_network(save):
    torch.manual_seed(1)
    network = DeepLinear3d(4)
    found = load_reblur(save(generator=UNet3d(4), blur=network), CPU)
    volume = np.random.default_rng(1).random((30, 28, 29), np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(volume)[None, None])[0, 0].numpy()
    inner = (slice(6, -6),) * 3
    scale = np.abs(expected).max()
    blurred = applied(found.function, volume, found.function.halo)
    assert np.allclose(blurred[inner], expected[inner], atol=1e-5 * scale)


def test_a_unet_that_blurs_is_run_as_in_restoration(save):
    torch.manual_seed(2)
    network = UNet3d(4, residual=True)
    torch.nn.init.normal_(network.head[0].weight, std=0.2)
    found = load_reblur(save(generator=UNet3d(4, residual=True), blur=network), CPU)
    assert (found.function.halo, found.function.stride) == (26, 4)
    volume = np.random.default_rng(1).random((8, 8, 8), np.float32)
    blurred = applied(found.function, volume, 28)
    padded = torch.from_numpy(np.pad(volume, 28, mode="reflect"))[None, None]
    with torch.no_grad():
        expected = network.eval()(padded)[0, 0].numpy()[28:36, 28:36, 28:36]
    assert np.allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize(("downsampling", "coarse"), [(None, True), (3.0, True), (1.0, False)])
def test_the_degradation_of_self_net_works_on_slices(save, downsampling, coarse):
    torch.manual_seed(3)
    plane = ResNet2d(4, 0, residual=True)
    torch.nn.init.normal_(plane.tail.weight, std=0.1)
    generator = SliceNetwork(ResNet2d(4, 0, residual=True))
    found = load_reblur(save({"downsampling": downsampling}, generator=generator, blur=plane), CPU)
    assert found.coarse is coarse
    volume = np.random.default_rng(1).random((12, 9, 10), np.float32)
    halo = found.function.halo
    padded = torch.from_numpy(np.pad(volume, halo, mode="reflect"))[None, None]
    keep = tuple(slice(halo, halo + n) for n in volume.shape)
    with torch.no_grad():
        expected = SliceNetwork(plane)(padded)[0, 0][keep].numpy()
    assert np.allclose(applied(found.function, volume, halo), expected, atol=1e-5)
    assert found.response.shape == (2 * halo + 1, 1, 1)


def test_networks_that_know_no_blur_are_refused(save):
    with pytest.raises(ModelFormatError, match="holds no blur"):
        load_reblur(save(generator=UNet3d(4)), CPU)
    with pytest.raises(ModelFormatError, match="hold no blur"):
        load_reblur(save(generator=SliceNetwork(ResNet2d(4, 0))), CPU)


def test_light_from_beyond_falls_with_the_distance():
    found = kernel_reblur(gaussian(2.0, 0.0, 0.0), CPU)
    share = found.beyond(0)
    assert share[-1] == 0
    assert (np.diff(share) <= 0).all()
    # Of a Gaussian, from further away than half a voxel and more.
    assert share[:4] == pytest.approx([0.401, 0.227, 0.106, 0.040], abs=0.01)
    assert found.beyond(1).tolist() == [0.0]
