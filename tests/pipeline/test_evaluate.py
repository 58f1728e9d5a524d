from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
import tifffile
from distributed import Client, LocalCluster
from skimage.metrics import mean_squared_error, structural_similarity

from isosr_cluster.clients import open_client
from isosr_pipeline.cli.tables import show_evaluation
from isosr_pipeline.errors import InputError, WorkFailedError
from isosr_pipeline.evidence.cones import SpectrumRatio
from isosr_pipeline.evidence.moments import Moments
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.evidence.similarity import SSIM_RADIUS, ssim_map
from isosr_pipeline.evidence.transforms import Transform
from isosr_pipeline.foreground import MOST_VOXELS
from isosr_pipeline.geometry import Box, Zyx, blocks
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.sources.tiff import TiffSource
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.store.volume import Volume


@pytest.fixture(scope="module")
def simulated():
    return simulate("neurites", (80, 140, 90), Acquisition(), seed=4)


def _with_reference(path):
    return EvaluateSettings(reference=str(path), rois=3)


def test_figures_equal_those_of_the_whole_volume(cluster, make_store, tmp_path, simulated):
    """Larger than a block, so that streaming and its halo are tried."""
    image, truth = simulated.image, simulated.truth
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")
    restored = (truth // 2 + 7).astype(np.uint16)
    settings = _with_reference(tmp_path / "truth.tif")
    found = evaluate(make_store(image).path, make_store(restored).path, settings, cluster)
    before, after = found.before.against_reference, found.after.against_reference
    gain, offset = np.polyfit(image.ravel().astype(float), truth.ravel().astype(float), 1)
    fitted = gain * image + offset
    error = mean_squared_error(truth.astype(float), fitted)
    assert (before.gain, before.offset) == (pytest.approx(gain), pytest.approx(offset))
    assert before.psnr_db == pytest.approx(10 * np.log10(float(truth.max()) ** 2 / error))
    assert before.nrmse == pytest.approx(np.sqrt(error / (truth.astype(float) ** 2).mean()))
    similarity = structural_similarity(
        truth.astype(float),
        fitted,
        data_range=float(truth.max() - truth.min()),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert before.ssim == pytest.approx(similarity, abs=2e-3)
    assert after.psnr_db > before.psnr_db + 10
    assert found.before.axial_lateral_ratio < 0.6 < 0.85 < found.after.axial_lateral_ratio < 1.15


def test_a_reference_store_and_undersampled_z(cluster, make_store, simulated):
    image = simulated.image[::2]
    store = make_store(image, voxel_size=(2.0, 1.0, 1.0))
    truth = make_store(simulated.truth[:79])
    found = evaluate(store.path, truth.path, _with_reference(truth.path), cluster)
    assert found.after.against_reference.psnr_db == np.inf
    assert found.after.against_reference.ssim == pytest.approx(1)
    assert found.before.against_reference.psnr_db < 60


def test_without_signal_or_depth_there_is_no_ratio(cluster, make_store):
    flat = make_store(np.full((40, 40, 40), 7, np.uint16)).path
    assert evaluate(flat, flat, EvaluateSettings(), cluster).before.axial_lateral_ratio is None
    thin = make_store(np.random.default_rng(0).integers(0, 9, (8, 40, 40), dtype=np.uint8)).path
    assert evaluate(thin, thin, EvaluateSettings(), cluster).before.axial_lateral_ratio is None


def test_what_does_not_fit_is_refused_before_a_cluster_is_opened(make_store, noise):
    def never():
        pytest.fail("a cluster was opened")

    store, other = make_store(noise).path, make_store(noise[:-1]).path
    with pytest.raises(InputError, match="on the isotropic grid"):
        evaluate(store, other, EvaluateSettings(), never)
    with pytest.raises(InputError, match="grid of the restored volume"):
        evaluate(store, store, _with_reference(other), never)
    with pytest.raises(InputError, match="has 1 channels, and channel 2"):
        evaluate(store, store, EvaluateSettings(channel=2), never)


EDGE = 32
SHAPE = Zyx(39, 70, 50)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("isosr_pipeline.steps.evaluate.BLOCK", EDGE)


@pytest.fixture
def blurred(make_store, tmp_path, simulated):
    """Paths of a volume with every second plane, of one that is restored, and of the truth."""
    truth = simulated.truth[: SHAPE.z, : SHAPE.y, : SHAPE.x]
    noise = np.random.default_rng(5).integers(0, 40, SHAPE, np.uint16)
    store = make_store(
        simulated.image[: SHAPE.z : 2, : SHAPE.y, : SHAPE.x], voxel_size=(2.0, 1.0, 1.0)
    )
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")
    return store.path, make_store(truth // 3 + noise).path, tmp_path / "truth.tif"


def _folded(path, truth):
    """Figures of a volume by adding block to block, in one process and in order."""
    view = IsotropicView(Volume(path))
    spectra, moments, similarity = SpectrumRatio(), Moments(), 0.0
    starts = [np.linspace(0, n - EDGE, -(-n // EDGE)).round().astype(int) for n in SHAPE]
    for start in itertools.product(*starts):
        cube = view.read(0, Box(Zyx(0, 0, 0), Zyx(EDGE, EDGE, EDGE)).shifted(start))
        spectra += SpectrumRatio.of(Transform(cube))
    parts = list(blocks(Box.whole(SHAPE), Zyx(EDGE, EDGE, EDGE)))
    for part in parts:
        moments.update(truth[part.slices], view.read(0, part))
    for part in parts:
        around = part.grown(SSIM_RADIUS).clipped(SHAPE)
        fitted = moments.gain * view.read(0, around) + moments.offset
        ssim = ssim_map(truth[around.slices], fitted, float(np.ptp(truth)))
        similarity += ssim[part.relative_to(around.start).slices].sum()
    return {
        "axial_lateral_ratio": spectra.ratio,
        "psnr_db": moments.psnr(fitted=True),
        "ssim": similarity / moments.count,
        "nrmse": moments.nrmse(fitted=True),
        "gain": moments.gain,
        "offset": moments.offset,
    }


def _flat(figures):
    found = figures.model_dump()
    kept = {"axial_lateral_ratio": found["axial_lateral_ratio"]}
    return {**found["against_reference"], **kept}


@pytest.mark.usefixtures("small_blocks")
def test_figures_are_those_of_one_process_with_one_worker_and_with_two(cluster, blurred):
    store, restored, truth = blurred
    two = evaluate(store, restored, _with_reference(truth), cluster)
    one = evaluate(store, restored, _with_reference(truth), lambda: open_client(workers=1))
    for path, name in ((store, "before"), (restored, "after")):
        expected = pytest.approx(_folded(path, tifffile.imread(truth)), rel=1e-9)
        assert _flat(getattr(one, name)) == expected
        assert _flat(getattr(two, name)) == expected


@pytest.mark.parametrize("damaged", ["input", "restored"])
@pytest.mark.usefixtures("small_blocks")
def test_a_damaged_shard_is_named_with_its_block(cluster, blurred, damaged):
    store, restored, truth = blurred
    where = store if damaged == "input" else restored
    shard = where / "0" / "c" / "0" / "0" / "2" / "1"
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(WorkFailedError) as caught:
        evaluate(store, restored, _with_reference(truth), cluster)
    shown = str(caught.value)
    assert shown.startswith(f"spectrum, {damaged} ({where}): the box z ")
    assert f"{shard} can't be read" in shown
    assert "same command again" in shown


def test_a_damaged_reference_is_named_on_the_command_line(isosr, blurred, client, capsys):
    store, restored, truth = blurred
    reference = truth.with_suffix(".h5")
    with h5py.File(reference, "w") as file:
        image = file.create_dataset("s0", data=tifffile.imread(truth), compression="gzip")
        damaged = image.id.get_chunk_info(3).byte_offset
    with reference.open("r+b") as file:
        file.seek(damaged)
        file.write(bytes(100))
    where = ("--cluster", client.scheduler_info()["address"])
    assert isosr("evaluate", store, restored, "--reference", f"{reference}::s0", *where) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"compare, input ({store} with {reference}): the box z 0:39" in captured.err
    assert f"{reference}::s0" in captured.err
    assert "Traceback" not in captured.err


def test_workers_elsewhere_find_paths_that_are_relative_here(
    isosr, blurred, client, tmp_path, monkeypatch, capsys
):
    store, restored, truth = blurred
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["t0/s0"] = tifffile.imread(truth)
        file["t0/s1"] = tifffile.imread(truth) // 2
    monkeypatch.chdir(tmp_path)
    where = ("--cluster", client.scheduler_info()["address"], "--json")
    assert isosr("evaluate", store.name, restored.name, "--reference", "truth.tif", *where) == 0
    expected = json.loads(capsys.readouterr().out)
    command = ("evaluate", store.name, restored.name, "--reference", "truth.h5::t0/s0")
    assert isosr(*command, *where) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["store"], found["restored"]) == (store.name, restored.name)
    assert (found["before"], found["after"]) == (expected["before"], expected["after"])


def test_json_has_every_figure_and_a_turned_reference_is_the_truth(
    isosr, blurred, client, tmp_path, capsys
):
    """A reference from the side, sections of it that are given, and spots."""
    store, restored, truth = blurred
    side = tmp_path / "side.tif"
    # Its z runs along y of the volume, and its y against z.
    turned = np.rot90(tifffile.imread(truth), 1, axes=(0, 1))
    tifffile.imwrite(side, turned, photometric="minisblack")
    where = ("--cluster", client.scheduler_info()["address"], "--json")
    rois = ("--roi", "5:6,:,3:40", "--roi", ":,20:21,:")
    command = ("evaluate", store, restored, "--spots", *rois)
    assert isosr(*command, "--reference", truth, *where) == 0
    expected = Evaluation.model_validate_json(capsys.readouterr().out)
    turn = ("--reference", side, "--reference-axes", "y,-z,x")
    assert isosr(*command, *turn, *where) == 0
    found = Evaluation.model_validate_json(capsys.readouterr().out)
    assert found.after == expected.after
    assert found.rois == expected.rois
    assert [(one.plane, one.shape) for one in found.rois.regions] == [
        ("xy", (1, SHAPE.y, 37)),
        ("xz", (SHAPE.z, 1, SHAPE.x)),
    ]
    assert (found.shape, found.voxel_size_um) == (SHAPE, (1, 1, 1))
    assert found.settings.reference_axes == "y,-z,x"
    assert found.sampling.how == "all"
    assert found.drift.borders_um[-1] == SHAPE.z
    assert found.spots.count == len(found.spots.pairs)
    assert (found.counts, found.seams) == (None, None)
    for figures in (found.before, found.after):
        assert set(figures.correlation) == {"z", "y", "x"}
        assert set(figures.spectra) == {"xy", "xz", "yz"}
        shells = len(figures.spectra["xz"].frequency_per_um)
        assert {len(p) for p in figures.spectra["xz"].power_along.values()} == {shells}
        assert figures.extremes.saturated_share == 0
    sharp, blunt = found.after.sharpness, found.before.sharpness
    assert sharp.axial_lateral_ratio > blunt.axial_lateral_ratio + 0.1
    drawn = ("evaluate", store, restored, "--reference", truth, "--rois", 6, "--seed", 3)
    assert isosr(*drawn, *where) == 0
    found = Evaluation.model_validate_json(capsys.readouterr().out)
    assert (found.rois.how, len(found.rois.regions)) == ("signal", 6)
    show_evaluation(found)
    shown = capsys.readouterr().out
    assert f"PSNR gains {found.rois.gain_db.median:+.2f} dB" in shown
    assert "resolution along z" in shown


@pytest.mark.usefixtures("small_blocks")
def test_no_more_than_a_block_is_read_at_once(blurred, monkeypatch):
    """Workers are threads here, so that what they and the driver read is all seen."""
    store, restored, truth = blurred
    seen, levels = [], []

    def counted(read):
        def counting(self, channel, box, *more):
            data = read(self, channel, box, *more)
            (levels if more else seen).append((self.path, data.size))
            return data

        return counting

    for image in (Volume, TiffSource):
        monkeypatch.setattr(image, "read", counted(image.read))
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as threads,
        Client(threads) as client,
    ):
        evaluate(store, restored, _with_reference(truth), lambda: nullcontext(client))
    around = EDGE + 2 * SSIM_RADIUS
    assert {path for path, _size in seen} == {store, restored, truth}
    assert max(size for _path, size in seen) <= around**3 < np.prod(SHAPE)
    # Of each: a spectrum's cubes and two passes over twelve blocks, once with a halo; sections.
    assert len([0 for path, _size in seen if path == store]) == 3 * 12 + 3
    # Coarse levels tell where something is, and how bright slabs are.
    assert {path for path, _size in levels} == {store, restored}
    assert max(size for _path, size in levels) <= MOST_VOXELS


def test_an_interrupted_evaluate_exits_75_and_prints_no_figures(make_store):
    voxels = np.random.default_rng(0).integers(0, 200, (150, 300, 300), np.uint8)
    store = str(make_store(voxels, chunk=(64, 64, 64), shard=(64, 128, 128)).path)
    command = [sys.executable, "-m", "isosr_pipeline", "evaluate", store, store]
    process = subprocess.Popen(
        [*command, "--reference", store, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Comparing 18 blocks twice takes many times as long as a signal.
    assert "spectrum, input" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGTERM)
    shown, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert shown == ""
    assert "nothing is kept: give the same command again" in told
    assert "--resume" not in told
    assert "Traceback" not in told
