import functools
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import metrics as skimage_metrics

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.similarity import SSIM_RADIUS, ssim_map
from isosr_pipeline.evidence.transforms import Transform

Volume = NDArray[Any]


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    """A reference and a blurred, noisy, rescaled image of it."""
    rng = np.random.default_rng(0)
    reference = ndimage.gaussian_filter(rng.random((24, 30, 28)) ** 20, 1.5) * 20000 + 300
    image = 0.4 * ndimage.gaussian_filter1d(reference, 2, axis=0) + rng.normal(90, 30, (24, 30, 28))
    return reference.astype(np.uint16), image.astype(np.float32)


def moments_of(reference: Volume, image: Volume) -> Moments:
    moments = Moments()
    moments.update(reference, image)
    return moments


def figures(moments: Moments) -> list[float]:
    both = (True, False)
    functions = (moments.mse, moments.psnr, moments.nrmse)
    return [moments.gain, moments.offset, *(f(fitted=b) for f in functions for b in both)]


def isotropic(seed: int, size: int = 64) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).standard_normal((size, size, size))
    return ndimage.gaussian_filter(noise, 1.2, mode="wrap") * 1000


def test_figures_equal_those_of_scikit_image(pair: tuple[Volume, Volume]) -> None:
    reference, image = (volume.astype(np.float64) for volume in pair)
    gain, offset = np.polyfit(image.ravel(), reference.ravel(), 1)
    moments = moments_of(*pair)
    assert moments.gain == pytest.approx(gain)
    assert moments.offset == pytest.approx(offset)
    for fitted, candidate in ((False, image), (True, gain * image + offset)):
        mse = skimage_metrics.mean_squared_error(reference, candidate)
        psnr = skimage_metrics.peak_signal_noise_ratio(
            reference, candidate, data_range=reference.max()
        )
        nrmse = skimage_metrics.normalized_root_mse(reference, candidate)
        assert moments.mse(fitted=fitted) == pytest.approx(mse)
        assert moments.psnr(fitted=fitted) == pytest.approx(psnr)
        assert moments.nrmse(fitted=fitted) == pytest.approx(nrmse)


@given(cuts=st.lists(st.integers(0, 24 * 30 * 28), max_size=8), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_blocks_of_any_size_and_order_equal_the_whole(
    pair: tuple[Volume, Volume], cuts: list[int], seed: int
) -> None:
    edges = sorted({0, *cuts, pair[0].size})
    blocks = [slice(*edge) for edge in itertools.pairwise(edges)]
    np.random.default_rng(seed).shuffle(blocks)
    first, second = Moments(), Moments()
    for index, block in enumerate(blocks):
        (first, second)[index % 2].update(pair[0].ravel()[block], pair[1].ravel()[block])
    whole = moments_of(*pair)
    merged = first + second
    assert merged.count == whole.count
    assert (merged.reference_min, merged.reference_max) == (pair[0].min(), pair[0].max())
    assert figures(merged) == pytest.approx(figures(whole), rel=1e-9)


def test_moments_survive_a_trip_to_a_worker(pair: tuple[Volume, Volume]) -> None:
    moments = moments_of(*pair)
    assert pickle.loads(pickle.dumps(moments)) == moments  # noqa: S301


def test_adding_moments_leaves_both_as_they_were(pair: tuple[Volume, Volume]) -> None:
    moments, before = moments_of(*pair), moments_of(*pair)
    assert (moments + Moments()) == before
    assert (Moments() + moments) == before
    assert (moments + moments).count == 2 * before.count
    assert moments == before


@given(gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_fitted_figures_do_not_depend_on_intensity_units(
    pair: tuple[Volume, Volume], gain: float, offset: float
) -> None:
    reference, image = pair[0], pair[1].astype(np.float64)
    usual, scaled = moments_of(reference, image), moments_of(reference, gain * image + offset)
    assert scaled.psnr(fitted=True) == pytest.approx(usual.psnr(fitted=True), abs=1e-6)
    assert scaled.gain * gain == pytest.approx(usual.gain, rel=1e-6)


def test_a_perfect_image_has_no_error(pair: tuple[Volume, Volume]) -> None:
    reference = pair[0]
    same = moments_of(reference, reference)
    assert same.mse(fitted=False) == 0
    assert same.psnr(fitted=False) == math.inf
    assert same.nrmse(fitted=False) == 0
    scaled = moments_of(reference, reference * 0.37 - 12.3)
    assert scaled.mse(fitted=True) == 0
    assert scaled.psnr(fitted=True) == math.inf
    assert scaled.gain == pytest.approx(1 / 0.37)


def test_a_constant_image_is_fitted_by_the_mean(pair: tuple[Volume, Volume]) -> None:
    reference = pair[0]
    moments = Moments()
    for plane in reference:
        moments.update(plane, np.full(plane.shape, 0.1))
    assert moments.gain == 0
    assert moments.offset == pytest.approx(reference.mean())
    assert moments.mse(fitted=True) == pytest.approx(reference.var())


def test_a_small_error_on_a_large_background_is_not_lost() -> None:
    rng = np.random.default_rng(1)
    reference = 1e9 + rng.normal(0, 1, 100_000)
    image = reference + rng.normal(0, 0.01, reference.size)
    moments = Moments()
    for block in np.split(np.arange(reference.size), 100):
        moments.update(reference[block], image[block])
    assert moments.mse(fitted=False) == pytest.approx(np.mean((reference - image) ** 2))
    assert moments.mse(fitted=True) == pytest.approx(1e-4, rel=0.02)


def test_an_empty_reference_gives_limits_not_errors() -> None:
    zeros = np.zeros((4, 4, 4))
    assert moments_of(zeros, zeros).psnr(fitted=True) == math.inf
    assert moments_of(zeros, zeros).nrmse(fitted=False) == 0
    assert moments_of(zeros, zeros + 1).psnr(fitted=False) == -math.inf
    assert moments_of(zeros, zeros + 1).nrmse(fitted=False) == math.inf


def test_unsigned_voxels_do_not_wrap_around() -> None:
    dark, bright = np.zeros((2, 2, 2), np.uint16), np.full((2, 2, 2), 60000, np.uint16)
    assert moments_of(dark, bright).mse(fitted=False) == 60000**2


def test_moments_refuse_what_cannot_be_compared() -> None:
    block = np.zeros((2, 3, 4))
    with pytest.raises(InputError, match=r"\(2, 3, 4\)"):
        Moments().update(block, block[:1])
    with pytest.raises(InputError, match=r"\(0, 3, 4\)"):
        Moments().update(block[:0], block)
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="NaN or infinite"):
            Moments().update(block, np.full_like(block, bad))
    empty = Moments()
    empty.update(block[:0], block[:0])
    for figure in (empty.mse, empty.psnr, empty.nrmse):
        with pytest.raises(InputError, match="no voxels"):
            figure(fitted=True)


def test_ssim_equals_that_of_scikit_image(pair: tuple[Volume, Volume]) -> None:
    reference, image = (volume.astype(np.float64) for volume in pair)
    span = float(np.ptp(reference))
    mean, full = skimage_metrics.structural_similarity(
        reference,
        image,
        data_range=span,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ssim = ssim_map(*pair, span)
    np.testing.assert_allclose(ssim, full, rtol=1e-9)
    inner = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
    assert ssim[inner].mean() == pytest.approx(mean)
    assert ssim_map(reference, reference, span) == pytest.approx(1.0)


@given(start=st.tuples(*(st.integers(0, 17),) * 3), size=st.tuples(*(st.integers(1, 7),) * 3))
@settings(max_examples=25, deadline=None)
def test_ssim_of_a_block_with_its_halo_equals_that_of_the_whole(
    pair: tuple[Volume, Volume], start: tuple[int, ...], size: tuple[int, ...]
) -> None:
    whole = ssim_map(*pair, 4000.0)
    wanted = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    # At the volume's border the halo ends there too, and the window mirrors as in the whole.
    lows = [max(a - SSIM_RADIUS, 0) for a in start]
    read = tuple(
        slice(low, a + n + SSIM_RADIUS) for low, a, n in zip(lows, start, size, strict=True)
    )
    trim = tuple(slice(w.start - low, w.stop - low) for w, low in zip(wanted, lows, strict=True))
    block = ssim_map(pair[0][read], pair[1][read], 4000.0)[trim]
    np.testing.assert_allclose(block, whole[wanted], rtol=1e-9)


def test_ssim_refuses_bad_input() -> None:
    block = np.zeros((12, 12, 12))
    for data_range in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="data_range"):
            ssim_map(block, block, data_range)
    with pytest.raises(InputError, match="shape"):
        ssim_map(block, block[1:], 1.0)


def ratio_of(*volumes: Volume) -> float:
    ratio = SpectrumRatio()
    for volume in volumes:
        ratio += SpectrumRatio.of(Transform(volume))
    return ratio.ratio


def test_an_isotropic_volume_has_a_spectrum_ratio_of_one() -> None:
    volumes = [isotropic(seed) for seed in range(4)]
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert ratio_of(*(v.transpose(axes) for v in volumes)) == pytest.approx(1.0, abs=0.1)


def test_the_spectrum_ratio_falls_with_axial_blur_and_rises_with_lateral() -> None:
    volume = isotropic(5)
    blurred = [ndimage.gaussian_filter1d(volume, s, axis=0, mode="wrap") for s in (1, 1.7, 3, 5)]
    ratios = [ratio_of(v) for v in (volume, *blurred)]
    assert all(a > 1.2 * b for a, b in itertools.pairwise(ratios))
    assert ratios[-1] < 0.25
    assert ratio_of(ndimage.gaussian_filter(volume, (0, 3, 3), mode="wrap")) > 2


def test_the_spectrum_ratio_estimates_the_transfer_along_z() -> None:
    """A transfer that depends on the axis alone, not on the frequency, is read off as it is."""
    volume = isotropic(6)
    frequencies = np.stack(np.meshgrid(*(np.fft.fftfreq(64),) * 3, indexing="ij"))
    axial = np.abs(frequencies).argmax(axis=0) == 0
    damped = np.fft.ifftn(np.fft.fftn(volume) * np.where(axial, 0.5, 1.0)).real
    assert ratio_of(damped) / ratio_of(volume) == pytest.approx(0.5, abs=0.05)


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
@settings(max_examples=10, deadline=None)
def test_the_spectrum_ratio_does_not_depend_on_intensity_units(gain: float, offset: float) -> None:
    volume = isotropic(7, 32)
    assert ratio_of(gain * volume + offset) == pytest.approx(ratio_of(volume), rel=1e-6)


def test_white_noise_does_not_hide_axial_blur() -> None:
    blurred = ndimage.gaussian_filter1d(isotropic(8), 2, axis=0, mode="wrap")
    noise = np.random.default_rng(9).normal(0, 0.7 * blurred.std(), blurred.shape)
    assert ratio_of(blurred + noise) == pytest.approx(ratio_of(blurred), abs=0.06)


def test_spectrum_ratios_add_up_in_any_order() -> None:
    volumes = [isotropic(seed, 32) * (1 + seed) for seed in range(4)]
    parts = [SpectrumRatio.of(Transform(volume)) for volume in volumes]
    forward = functools.reduce(SpectrumRatio.__add__, parts).ratio
    backward = functools.reduce(SpectrumRatio.__add__, parts[::-1]).ratio
    assert forward == pytest.approx(ratio_of(*volumes))
    assert backward == pytest.approx(forward)


def test_constant_subvolumes_change_nothing() -> None:
    volume, empty = isotropic(3, 32), np.full((32, 32, 32), 0.1, np.float32)
    assert ratio_of(volume, empty) == ratio_of(volume)
    assert math.isnan(ratio_of(empty))
    assert math.isnan(SpectrumRatio().ratio)


def test_noise_alone_has_no_spectrum_ratio() -> None:
    rng = np.random.default_rng(0)
    assert math.isnan(ratio_of(*(rng.poisson(50, (64, 64, 64)) for _ in range(3))))


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 64, 48), (17, 33, 65)])
def test_subvolumes_need_not_be_cubes(shape: tuple[int, int, int]) -> None:
    volumes = [isotropic(seed, 65)[tuple(slice(0, n) for n in shape)] for seed in range(12)]
    assert ratio_of(*volumes) == pytest.approx(1.0, abs=0.25)


def test_spectra_refuse_bad_subvolumes() -> None:
    for bad in (np.zeros((64, 64)), np.zeros((8, 64, 64))):
        with pytest.raises(InputError, match="at least 16"):
            Transform(bad)
    with pytest.raises(InputError, match="NaN"):
        Transform(np.full((16, 16, 16), np.nan))
