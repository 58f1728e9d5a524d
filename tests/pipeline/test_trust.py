"""The trust map: what explains the measured volume is clean, and what was painted in lights up."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from isosr_models.deep_linear import DeepLinear3d
from isosr_models.model_folder import save_model
from isosr_models.resnet import ResNet2d
from isosr_models.slices import SliceNetwork
from isosr_models.unet import UNet3d
from isosr_models.unet2d import UNet2d
from isosr_pipeline.errors import InputError, OutputExistsError, ResumeError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import RestoreSettings, TrustSettings
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.steps import trust as step
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.steps.trust import trust
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import RichardsonLucySettings
from isosr_pipeline.trust.beside import map_beside

IMAGED = Acquisition()
LEFT = math.sqrt(IMAGED.axial_fwhm_um**2 - IMAGED.lateral_fwhm_um**2)
"""FWHM in µm of the blur between the truth and what was measured."""

GIVEN = TrustSettings(axial_fwhm=LEFT, device="cpu")
SIZE = IMAGED.voxel_size_um


@pytest.fixture(scope="module", params=[1, 3], ids=["all planes", "every third plane"])
def simulated(request):
    """An image, its voxel size, and a truth of as many planes as its isotropic grid has."""
    z_step = request.param
    found = simulate("neurites", (73, 64, 72), Acquisition(z_step=z_step), seed=3)
    return found.image, found.image_voxel_size, found.truth.astype(np.float32)


@pytest.fixture
def measured(make_store, simulated):
    image, size, _truth = simulated
    return make_store(image, voxel_size=size)


@pytest.fixture
def made(make_store):
    """Store what stands for a restored volume."""
    return lambda voxels: make_store(voxels, voxel_size=(SIZE, SIZE, SIZE))


def scores_of(path, channel=0):
    volume = Volume(path)
    return volume.read(channel, Box.whole(volume.shape[1:]))


def test_what_explains_the_measured_volume_is_clean(cluster, measured, made, simulated):
    restored = made(simulated[2])
    found = trust(measured.path, restored.path, "identity", GIVEN, cluster)
    (one,) = found.channels
    assert (one.flagged, one.flagged_signal, found.worst) == (0, 0, ())
    # Light from beyond reaches the first eight of 73 planes, and the last nine.
    assert one.cells == 7 * 8 * 9
    assert 0 < one.signal < one.cells / 2
    assert 0.7 < one.spread < 1.3
    assert one.gain == pytest.approx(1, abs=0.03)
    assert abs(one.offset) < 0.5
    out = Volume(map_beside(restored.path))
    assert (out.dtype, out.shape) == (np.float32, (1, 10, 8, 9))
    assert out.voxel_size == (8 * SIZE,) * 3
    # The centre of the first cell.
    assert out.origin == (3.5 * SIZE,) * 3
    assert np.abs(scores_of(out.path)).max() < GIVEN.threshold
    own = out.require_own()
    assert own.complete
    assert own.history[-1].step == "trust"
    assert own.history[-1].figures == found.model_dump(mode="json")


def test_painted_and_erased_structures_light_up(cluster, measured, made, simulated):
    truth = simulated[2].copy()
    blob = np.zeros_like(truth)
    blob[36, 44, 12] = 1
    blob = ndimage.gaussian_filter(blob, 1.2)
    truth += 120 * blob / blob.max()
    inner = truth[20:60, 10:54, 24:62]
    z, y, x = np.add(np.unravel_index(inner.argmax(), inner.shape), (20, 10, 24))
    distance = np.linalg.norm(np.indices(truth.shape) - np.reshape((z, y, x), (3, 1, 1, 1)), axis=0)
    truth[distance < 6] = IMAGED.background
    found = trust(measured.path, made(truth).path, "identity", GIVEN, cluster)
    scores = scores_of(found.map)
    assert scores[4, 5, 1] > GIVEN.threshold
    assert scores[z // 8, y // 8, x // 8] < -GIVEN.threshold
    # Nothing else does, but what the blur along z reaches.
    near = np.zeros(scores.shape, bool)
    near[2:7, 4:7, 0:3] = True
    near[
        tuple(slice(max(at // 8 - r, 0), at // 8 + r + 1) for at, r in ((z, 2), (y, 1), (x, 1)))
    ] = 1
    assert np.abs(scores[~near]).max() < GIVEN.threshold
    (one,) = found.channels
    assert one.invented > 0
    assert one.missing > 0
    assert one.flagged * one.cells == pytest.approx((np.abs(scores) > GIVEN.threshold).sum())
    signs = {}
    for place in found.worst:
        signs.setdefault(place.score > 0, place)
        assert place.um == tuple(SIZE * n for n in place.voxel)
        assert place.score == pytest.approx(scores[tuple(n // 8 for n in place.voxel)], abs=0.01)
    assert np.abs(np.subtract(signs[True].voxel, (36, 44, 12))).max() < 9
    assert np.abs(np.subtract(signs[False].voxel, (z, y, x))).max() < 9
    order = [abs(place.score) for place in found.worst]
    assert order == sorted(order, reverse=True)


def test_regions_and_blocks_change_nothing(
    cluster, measured, made, simulated, monkeypatch, tmp_path
):
    restored = made(0.8 * simulated[2] + 5).path
    asked = GIVEN.model_copy(update={"cell": (4, 3, 5), "tolerance": 0.0})
    at_once = trust(measured.path, restored, "identity", asked, cluster, out=tmp_path / "a.zarr")
    assert at_once.channels[0].gain == pytest.approx(1.25, rel=0.04)
    monkeypatch.setattr("isosr_pipeline.trust.blocks._LARGEST", 20)
    monkeypatch.setattr("isosr_pipeline.trust.outline._CHUNK", 8)
    monkeypatch.setattr("isosr_pipeline.trust.outline._EDGES", (20, 20))
    out = tmp_path / "b.zarr"
    cut = trust(measured.path, restored, "identity", asked, cluster, out=out)
    assert Volume(out).shard() == (8, 8, 8)
    assert np.allclose(scores_of(at_once.map), scores_of(out), atol=1e-3)
    assert cut.channels == at_once.channels
    # Of neighbours across a border only one is named.
    assert [place.voxel for place in cut.worst] == [place.voxel for place in at_once.worst]


def test_a_part_is_compared_with_that_part_and_with_what_its_model_knows(
    cluster, make_store, tmp_path
):
    """Two channels of which one is restored; a deconvolution knows its PSF."""
    image = simulate("cells", (40, 72, 64), Acquisition(z_step=2, photons=500), seed=5).image
    store = make_store(np.stack([image[::-1], image]), voxel_size=(2 * SIZE, SIZE, SIZE)).path
    model, out = tmp_path / "model", tmp_path / "part.zarr"
    psf = {"axial_fwhm": IMAGED.axial_fwhm_um, "lateral_fwhm": IMAGED.lateral_fwhm_um}
    train([store], model, RichardsonLucySettings(**psf, iterations=6))
    cut = {"roi": "3:38,8:72,:", "channel": 1, "chunk": 16, "shard": 32, "device": "cpu"}
    restore(store, str(model), out, RestoreSettings(**cut), cluster)
    found = trust(store, out, str(model), TrustSettings(device="cpu"), cluster)
    (one,) = found.channels
    assert found.blur == str(model)
    # A few iterations fall short of what is bright.
    assert one.gain == pytest.approx(1.05, abs=0.05)
    assert one.flagged < 0.01
    assert Volume(found.map).origin == pytest.approx(
        [a + 3.5 * SIZE for a in (3 * SIZE, 8 * SIZE, 0)]
    )
    # Another blur explains it less well.
    wrong = TrustSettings(axial_fwhm=0.2, device="cpu", tolerance=0.0)
    other = trust(store, out, str(model), wrong, cluster, out=tmp_path / "wrong.zarr")
    assert other.channels[0].flagged > 10 * one.flagged + 0.05


def test_places_of_a_part_are_told_in_coordinates_of_the_whole_volume(
    isosr, cluster, make_store, tmp_path, capsys, monkeypatch
):
    """Of three channels one is painted, in places that are known on the grid of the whole."""
    image = np.random.default_rng(4).poisson(100, (3, 23, 60, 70)).astype(np.uint16)
    store = make_store(image, voxel_size=(1.5, 0.5, 0.5)).path
    monkeypatch.setattr("isosr_pipeline.clusters.cluster_for", lambda *_, **__: cluster)
    out, corner = tmp_path / "part.zarr", (14, 9, 20)
    cut = {"roi": "14:54,9:59,20:68", "channel": (0, 2), "chunk": 16, "shard": 64}
    restore(store, "identity", out, RestoreSettings(**cut, device="cpu"), cluster)
    part = Volume(out, writable=True)
    assert part.shape == (2, 40, 50, 48)
    bright = Box(Zyx(30, 29, 44), Zyx(34, 33, 48))
    voxels = part.read(1, Box.whole(part.shape[1:]))
    voxels[bright.relative_to(corner).slices] += 3000
    part.write(1, Box.whole(part.shape[1:]), voxels)
    command = ("trust", store, out, "identity", "--axial-fwhm", 0.1, "--worst", 1, "--device")
    assert isosr(*command, "cpu", "--cell", "3,2,2", "--json") == 0
    (place,) = json.loads(capsys.readouterr().out)["worst"]
    # The second of the channels that were restored.
    assert place["channel"] == 1
    assert place["score"] > 0
    # To half a cell, and along z to the distance of measured planes.
    assert all(
        a - slack <= at < b + slack
        for at, a, b, slack in zip(place["grid"], bright.start, bright.stop, (3, 1, 1), strict=True)
    )
    assert place["voxel"] == list(np.subtract(place["grid"], corner))
    assert place["um"] == [0.5 * at for at in place["grid"]]
    assert isosr(*command, "cpu", "--cell", "3,2,2", "--resume") == 0
    shown = capsys.readouterr().out
    assert "of the whole volume" in shown
    assert ", ".join(map(str, place["grid"])) in shown


@pytest.fixture
def networks(tmp_path):
    """Write model folders of networks that restore, and of blurs."""

    def write(name, run=None, **found):
        options = {"window_percentiles": (0.03, 99.97), "window": (0.0, 200.0)}
        save_model(tmp_path / name, found, method=name, training={"run": run or {}}, **options)
        return str(tmp_path / name)

    return write


def test_learned_blurs_are_used_with_the_window_of_their_model(cluster, made, networks, tmp_path):
    """All three start as the identity, so that what was measured explains itself."""
    image = simulate("neurites", (24, 32, 40), Acquisition(z_step=1), seed=1).image
    store, restored = made(image).path, made(image.astype(np.float32)).path
    unet, slices = UNet3d(4, residual=True), SliceNetwork(ResNet2d(4, 0, residual=True))
    models = [
        networks("linear", generator=unet, blur=DeepLinear3d(4, residual=True)),
        networks("unet", generator=unet, blur=UNet3d(4, residual=True)),
        networks("self-net", generator=slices, blur=ResNet2d(4, 0, residual=True)),
    ]
    asked = TrustSettings(device="cpu", tolerance=0)
    for number, model in enumerate(models):
        out = tmp_path / f"{number}.zarr"
        found = trust(store, restored, model, asked, cluster, out=out)
        assert found.channels[0].gain == pytest.approx(1, abs=1e-3)
        assert found.channels[0].cells > 0
        assert np.abs(scores_of(out)).max() < 0.1


def test_the_degradation_of_self_net_sees_what_the_distance_of_planes_leaves(
    cluster, measured, made, simulated, networks, tmp_path
):
    """It starts as the identity, so that only planes are compared: as without any blur."""
    slices = SliceNetwork(ResNet2d(4, 0, residual=True))
    model = networks("self-net", generator=slices, blur=ResNet2d(4, 0, residual=True))
    restored = made(simulated[2]).path
    asked = TrustSettings(device="cpu")
    found = trust(measured.path, restored, model, asked, cluster)
    sharp = asked.model_copy(update={"axial_fwhm": 0.01})
    trust(measured.path, restored, model, sharp, cluster, out=tmp_path / "sharp.zarr")
    inner = (slice(2, -2), slice(2, -2), slice(2, -2))
    both = [scores_of(path)[inner] for path in (found.map, tmp_path / "sharp.zarr")]
    assert np.allclose(*both, atol=0.05)
    # The truth is not what was measured.
    assert found.channels[0].flagged_signal > 0.1


def test_self_blur_knows_its_gaussian(networks):
    from isosr_pipeline.trust.blurs import known_blur

    degradation = {"square_x": 4.0, "square_y": 5.0, "error": 0.1, "noise_gain": 1.0}
    blur = {"source": "given", "voxel_size_um": 0.5, "degradation": degradation}
    degradation["noise_floor"] = 0.0
    model = networks("self-blur", {"residual_blur": blur}, generator=SliceNetwork(UNet2d(4)))
    found = known_blur(model, None, 0.5)
    assert found.model is None
    assert found.fwhm == pytest.approx(2.3548 * math.sqrt(4.5), rel=1e-4)
    assert known_blur(model, 2.0, 0.5).fwhm == 4.0


def test_what_does_not_fit_is_refused_with_a_remedy(cluster, made, networks, tmp_path, make_store):
    image = np.random.default_rng(0).poisson(50, (16, 20, 24)).astype(np.uint16)
    store = made(image).path
    other = made(image).path
    sharp = SliceNetwork(ResNet2d(4, 0, residual=True))
    model = networks("self-net", generator=sharp, blur=ResNet2d(4, 0))
    without = networks("other", generator=SliceNetwork(ResNet2d(4, 0)))
    out = tmp_path / "out.zarr"
    small = RestoreSettings(chunk=16, shard=16, device="cpu")
    restore(store, model, out, small, cluster)
    plain = TrustSettings(device="cpu")
    long = TrustSettings(device="cpu", axial_fwhm=2000)
    sparse = make_store(image[::4], voxel_size=(4 * SIZE, SIZE, SIZE)).path
    thirteen = made(image[:13].astype(np.float32)).path
    for paths, with_model, asked, message in (
        ((store, out), "identity", plain, "identity knows no blur.*--axial-fwhm"),
        ((store, out), without, plain, "knows no blur that can be used.*--axial-fwhm"),
        ((store, out), without, GIVEN, "made with another model"),
        ((other, out), model, plain, "made of another volume"),
        ((store, thirteen), model, plain, r"has \(13, 20, 24\) voxels"),
        ((store, out), model, long, "more than 512 voxels"),
        ((sparse, thirteen), model, plain.model_copy(update={"cell": (3, 8, 8)}), "give 4 or more"),
        ((store, out), model, plain.model_copy(update={"channel": (1,)}), "has 1 channels"),
    ):
        with pytest.raises(InputError, match=message):
            trust(*paths, with_model, asked, cluster)
    with pytest.raises(InputError, match="would destroy the other"):
        trust(store, out, model, plain, cluster, out=out / "map")
    assert not map_beside(out).exists()


def test_what_was_interrupted_goes_on_and_is_bound_to_its_settings(
    cluster, made, monkeypatch, tmp_path
):
    image = simulate("neurites", (24, 32, 40), Acquisition(), seed=1).image
    store, restored = made(image).path, made(image.astype(np.float32)).path
    out, asked = tmp_path / "out.zarr", GIVEN.model_copy(update={"cell": (4, 4, 4)})
    with monkeypatch.context() as patched:

        def interrupted(*_):
            raise KeyboardInterrupt

        patched.setattr(step, "_summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trust(store, restored, "identity", asked, cluster, out=out)
    assert not Volume(out).require_own().complete
    with pytest.raises(OutputExistsError, match="--resume"):
        trust(store, restored, "identity", asked, cluster, out=out)
    changed = asked.model_copy(update={"threshold": 4.0})
    with pytest.raises(ResumeError, match="threshold"):
        trust(store, restored, "identity", changed, cluster, out=out, if_exists="resume")
    found = trust(store, restored, "identity", asked, cluster, out=out, if_exists="resume")
    assert Volume(out).require_own().complete
    again = trust(store, restored, "identity", asked, cluster, out=out, if_exists="resume")
    assert again == found


def test_the_command_says_what_was_found(
    isosr, cluster, made, simulated, measured, capsys, monkeypatch
):
    monkeypatch.setattr("isosr_pipeline.clusters.cluster_for", lambda *_, **__: cluster)
    wall = 100 * (np.indices(simulated[2].shape)[2] == 30)
    restored = made((simulated[2] + wall).astype(np.float32)).path
    options = (measured.path, restored, "identity", "--axial-fwhm", LEFT, "--device", "cpu")
    assert isosr("trust", *options, "--worst", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["worst"]) == 3
    assert found["channels"][0]["invented"] > 0.05
    assert isosr("trust", *options, "--worst", 3, "--resume") == 0
    shown = capsys.readouterr()
    assert "complete already" in shown.err
    assert "worst places" in shown.out
    assert isosr("trust", *options) == 2
    assert "--resume" in capsys.readouterr().err
