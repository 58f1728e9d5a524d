"""What is told from the transform of a cube, against other ways to find the same."""

from __future__ import annotations

import functools
import operator
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from isosr_pipeline.evidence.cubes import MeasureCube
from isosr_pipeline.evidence.extremes import ExtremeCounts
from isosr_pipeline.evidence.sections import PLANES, SectionSpectra
from isosr_pipeline.evidence.shells import ShellSums
from isosr_pipeline.evidence.slopes import SMOOTHING, SlopeSums
from isosr_pipeline.evidence.summing_up import figures_of
from isosr_pipeline.evidence.transforms import Transform
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView, Part
from isosr_pipeline.simulation.volume import Acquisition, simulate

EDGE = 64


def white(seed, edge=EDGE):
    return np.random.default_rng(seed).normal(0, 1, (edge,) * 3)


def band_limited(seed, highest, edge=EDGE):
    """White noise without frequencies beyond an ellipsoid: the highest along z, y, x."""
    frequencies = np.meshgrid(*(np.fft.fftfreq(edge),) * 3, indexing="ij")
    size = sum((f / h) ** 2 for f, h in zip(frequencies, highest, strict=True))
    return np.fft.ifftn(np.fft.fftn(white(seed, edge)) * (size <= 1)).real


def added(kind, volumes):
    return functools.reduce(operator.add, (kind.of(Transform(v)) for v in volumes))


def test_the_resolution_is_where_a_band_ends():
    highest = (0.15, 0.22, 0.3)
    volumes = []
    for seed in range(4):
        signal = band_limited(seed, highest)
        volumes.append(signal / signal.std() + 2.5 * white(100 + seed))
    sums = added(ShellSums, volumes)
    for axis, limit in enumerate(highest):
        # A Hann window, and smoothing, carry the end of a band two modes further at most.
        assert sums.resolved(axis) == pytest.approx(limit, abs=2 / EDGE)
        within = sums.frequency < limit - 2 / EDGE
        beyond = sums.frequency > limit + 3 / EDGE
        assert sums.correlation(axis)[within].mean() > 0.6
        assert abs(sums.correlation(axis)[beyond].mean()) < 0.1


def test_noise_resolves_nothing_and_detail_above_noise_all():
    assert added(ShellSums, [white(s, 32) for s in range(6)]).resolved(0) is None
    detail = band_limited(1, (0.6, 0.1, 0.1))
    noise = detail.std() * white(2)
    assert ShellSums.of(Transform(detail + noise)).resolved(0) == 0.5


SMOOTHERS = {
    "gaussian": lambda noise: ndimage.gaussian_filter(noise, 0.6),
    "wide gaussian": lambda noise: ndimage.gaussian_filter(noise, 1.0),
    "median": lambda noise: ndimage.median_filter(noise, 3),
}


@pytest.mark.parametrize("smooth", SMOOTHERS.values(), ids=SMOOTHERS)
def test_smooth_noise_is_no_detail(smooth):
    sums = ShellSums.of(Transform(smooth(white(11))))
    for axis in range(3):
        assert sums.correlation(axis)[5:].min() > 0.2
        assert sums.noise_correlation(axis) > 0.5
        assert sums.resolved(axis) is None


def test_only_noise_of_the_rows_that_are_compared_must_be_independent():
    """For x these are rows along y; so it is after interpolation along z, for all axes."""
    signal = band_limited(12, (0.3, 0.3, 0.3))
    noise = signal.std() * white(13)
    sums = ShellSums.of(Transform(signal + ndimage.gaussian_filter1d(noise, 1.0, axis=1)))
    assert [sums.resolved(axis) is None for axis in range(3)] == [True, False, True]
    planes = (signal + noise)[::2]
    between = (planes[:-1] + planes[1:]) / 2
    doubled = np.stack([planes[:-1], between], axis=1).reshape(-1, EDGE, EDGE)
    sums = ShellSums.of(Transform(doubled))
    assert all(abs(sums.noise_correlation(axis)) < 0.1 for axis in range(3))


def test_a_volume_without_noise_has_no_shell_correlation_to_tell():
    image = simulate("cells", (48, 48, 48), Acquisition(photons=60000), seed=0).truth
    figures = figures_of(_sums(image), None, 0.5, is_float=False)
    found = figures.correlation["z"]
    assert (found.resolution_um, found.at_limit, found.noise_correlates) == (None, False, True)
    noisy = np.random.default_rng(0).poisson(image / 100)
    found = figures_of(_sums(noisy), None, 0.5, is_float=False).correlation["z"]
    assert found.noise_correlation < 0.1
    assert 1 < found.resolution_um < 2


def _sums(voxels):
    return MeasureCube(part_of(voxels), 0)(Box.whole(voxels.shape))


def test_the_shell_correlation_is_that_of_even_and_odd_rows():
    """Split in voxels, and the shift by a row undone by its phase."""
    volume = band_limited(3, (0.2, 0.2, 0.2), 32) + 0.05 * white(4, 32)
    window = np.hanning(34)[1:-1]
    windowed = (volume - volume.mean()) * window[:, None, None] * window[:, None] * window
    sums = ShellSums.of(Transform(volume))
    fz, fy, fx = np.meshgrid(
        np.fft.fftfreq(32), np.fft.fftfreq(16, 2.0), np.fft.fftfreq(32), indexing="ij"
    )
    even = np.fft.fftn(windowed[:, ::2])
    odd = np.fft.fftn(windowed[:, 1::2]) * np.exp(-2j * np.pi * fy)
    size = np.sqrt(fz**2 + fy**2 + fx**2)
    near_x = np.abs(fx) >= np.cos(np.radians(20)) * size
    for shell in range(1, 17):
        chosen = near_x & (np.rint(size * 32) == shell)
        cross = (even * odd.conj()).real[chosen].sum()
        assert sums.cross[2, shell - 1] == pytest.approx(cross, rel=1e-9)
        assert sums.even[2, shell - 1] == pytest.approx((np.abs(even[chosen]) ** 2).sum())


def test_planes_that_are_interpolated_do_not_feign_resolution():
    """Noise that neighbouring planes share is no detail along z."""
    doubled = []
    for seed in range(6):
        planes = np.random.default_rng(seed).normal(0, 1, (33, EDGE, EDGE))
        between = (planes[:-1] + planes[1:]) / 2
        doubled.append(np.stack([planes[:-1], between], axis=1).reshape(EDGE, EDGE, EDGE))
    assert abs(added(ShellSums, doubled).correlation(0)[3:20].mean()) < 0.05


@pytest.mark.parametrize(("plane", "axes"), PLANES.items())
def test_section_spectra_are_those_of_the_sections(plane, axes):
    volume = band_limited(5, (0.1, 0.2, 0.3), 32) + 0.02 * white(6, 32)
    sums = SectionSpectra.of(Transform(volume))
    window = np.hanning(34)[1:-1]
    (across,) = set(range(3)) - set(axes)
    windowed = (volume - volume.mean()) * window[:, None, None] * window[:, None] * window
    sections = np.moveaxis(windowed, across, 0)
    power = (np.abs(np.fft.fft2(sections)) ** 2).sum(axis=0) / (window**2).sum() ** 3
    first, second = np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32), indexing="ij")
    size = np.hypot(first, second)
    cosine = np.cos(np.radians(20)) * size
    everywhere = np.ones_like(size, bool)
    parts = (everywhere, np.abs(first) >= cosine, np.abs(second) >= cosine)
    for found, part in zip(sums.power[list(PLANES).index(plane)], parts, strict=True):
        shells = [part & (np.rint(size * 32) == shell) for shell in range(1, 17)]
        assert found == pytest.approx([power[shell].mean() for shell in shells])


def test_white_noise_has_its_variance_at_all_frequencies():
    sums = added(SectionSpectra, [3 * white(seed, 32) for seed in range(8)])
    assert sums.power[:, 0, 2:].mean() / sums.count == pytest.approx(9, rel=0.03)
    assert sums.floor / sums.count == pytest.approx(9, rel=0.03)


def test_sharpness_is_that_of_a_gaussian():
    sigmas = (3.0, 1.5, 2.0)
    grids = np.indices((EDGE,) * 3) - (EDGE - 1) / 2
    spot = np.exp(-0.5 * sum((g / s) ** 2 for g, s in zip(grids, sigmas, strict=True)))
    found = SlopeSums.of(Transform(200 + 50 * spot)).sharpness
    # The slope of a Gaussian, squared and integrated, over its square: 1 / (2 sigma²).
    expected = [1 / np.sqrt(2 * (s**2 + SMOOTHING**2)) for s in sigmas]
    assert found == pytest.approx(expected, rel=0.025)
    assert SlopeSums.of(Transform(np.full((16,) * 3, 7))).sharpness is None


@pytest.mark.parametrize(
    ("dtype", "values", "zeros", "top"),
    [
        (np.uint8, [0, 0, 3, 255], 2, 1),
        (np.uint16, [0, 255, 65535, 65535], 1, 2),
        (np.int16, [-32768, 0, 32766, 32767], 1, 1),
        (np.float32, [0, 1, 2, 3e38], 1, 0),
    ],
)
def test_voxels_at_the_ends_of_the_dtype_are_counted(dtype, values, zeros, top):
    stored = np.array(values, dtype).reshape(1, 2, 2)
    counts = ExtremeCounts.of(stored)
    assert (counts.voxels, counts.zeros, counts.top) == (4, zeros, top)
    assert (counts.low, counts.high) == (float(stored.min()), float(stored.max()))


def test_saturation_is_counted_in_measured_planes():
    """No interpolated plane is saturated where only one in three is."""
    voxels = np.full((17, 32, 32), 100, np.uint16)
    voxels[5, :8] = 65535
    part = part_of(voxels, z=3.0)
    assert part.shape == (49, 32, 32)
    extremes = MeasureCube(part, 0)(Box(Zyx(0, 0, 0), Zyx(32, 32, 32))).extremes
    # Planes 0 to 11 lie around that cube.
    assert (extremes.voxels, extremes.top) == (12 * 32 * 32, 8 * 32)


def part_of(voxels, z=1.0):
    image = SimpleNamespace(
        path="array",
        shape=(1, *voxels.shape),
        voxel_size=(z, 1.0, 1.0),
    )
    image.read = partial(_read, voxels)
    view = IsotropicView(image)
    return Part(view, Box.whole(view.shape), [0])


def _read(voxels, channel, box):
    return voxels[box.slices]


def test_cubes_add_up_in_any_order_and_travel():
    job = MeasureCube(part_of(white(9)[:32, :32]), 0)
    boxes = [Box(Zyx(0, 0, x), Zyx(32, 32, x + 32)) for x in (0, 16, 32)]
    a, b, c = (pickle.loads(pickle.dumps(job(box))) for box in boxes)  # noqa: S301 - our own bytes
    one, other = (a + b) + c, c + (b + a)
    assert one.shells.correlation(1) == pytest.approx(other.shells.correlation(1))
    assert one.sections.power == pytest.approx(other.sections.power)
    assert one.slopes.sharpness == pytest.approx(other.slopes.sharpness)
    assert one.extremes == other.extremes
    assert one.extremes.voxels == 3 * 32**3
    assert one.sections.count == 3
