"""The trust map in a plan: what is planned is what is done, where one is made."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from plans import MAP_RATES, make_model, make_volume

from isosr_models.model_folder import save_model
from isosr_models.resnet import ResNet2d
from isosr_models.slices import SliceNetwork
from isosr_pipeline.cli.plan_table import show_plan
from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.restoring import timing
from isosr_pipeline.settings import TrustSettings
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.steps.trust import trust
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import (
    OTCycleGANSettings,
    SelfNetSettings,
)
from isosr_pipeline.trust import planning
from isosr_pipeline.trust.intended import KernelOf, UntrainedBlur
from isosr_pipeline.trust.prepared import plan_trust
from isosr_pipeline.trust.regions import TrustRegion

DECONVOLVED = {"method": "richardson-lucy", "axial_fwhm": 4, "iterations": 1}


@pytest.fixture
def small_regions(monkeypatch):
    """Regions of 32 voxels where cells are 8 long, and blocks of 16."""
    monkeypatch.setattr("isosr_pipeline.trust.outline._CHUNK", 4)
    monkeypatch.setattr("isosr_pipeline.trust.outline._EDGES", (32, 32))
    monkeypatch.setattr("isosr_pipeline.trust.blocks._LARGEST", 16)


def slices_model(brain):
    """A model of Self-Net, whose blur sees planes at their distance."""
    network, blur = SliceNetwork(ResNet2d(4, 0, residual=True)), ResNet2d(4, 0)
    options = {"window_percentiles": (0.03, 99.97), "window": (0.0, 4000.0), "training": {}}
    found = {"generator": network, "blur": blur}
    save_model(brain.trained_model, found, method="self-net", **options)


def deconvolution_model(brain):
    train([brain.store], brain.trained_model, brain.train)


@pytest.mark.parametrize(
    ("own", "make"),
    [
        (DECONVOLVED, deconvolution_model),
        (
            {
                "method": "self-net",
                "width": 4,
                "blocks": 0,
                "patch": 24,
                "crop": 32,
                "iterations": 1,
            },
            slices_model,
        ),
    ],
    ids=["kernel", "planes at their distance"],
)
def test_what_is_planned_of_the_map_is_what_is_done(
    planned, tmp_path, cluster, monkeypatch, small_regions, own, make
):
    part = {"roi": "5:64,6:66,8:60", "block": "auto"}
    before = planned(train=own, restore=part)
    brain = make_volume(tmp_path, cluster)
    make(brain)
    restore(brain.store, str(brain.trained_model), brain.restored, brain.restore, cluster)
    again = planned(train=own, restore=part)
    assert again.restore is None
    found = again.trust
    # Before there is a model its blur is as long, and as much work.
    assert before.trust == found.model_copy(update={"blur": before.trust.blur})
    todo = plan_trust(brain.store, brain.restored, str(brain.trained_model), brain.trust)
    assert (found.shape, found.voxel_size) == (todo.outline.spec.shape, (8.0, 8.0, 8.0))
    assert found.regions == 2 * 2 * 2
    read = 0
    original = LevelReader.read

    def counting(self, channel, box):
        nonlocal read
        lengths = zip(box.start, box.stop, (16, 16, 16), strict=True)
        if {brain.store, brain.restored} & set(self._folder.parents):
            read += 2 * math.prod((-(-b // c) - a // c) * c for a, b, c in lengths)
        return original(self, channel, box)

    monkeypatch.setattr(LevelReader, "read", counting)
    create_volume(brain.trust_map, todo.outline.spec, StoreAttributes())
    job = TrustRegion(
        reblurring=todo.reblurring,
        out=brain.trust_map,
        channels=[0],
        terms=[planning._ANY_TERMS],
        cell=todo.outline.cell,
        block=Zyx(*found.compare.block),
        threshold=5.0,
        worst=0,
    )
    for region in todo.outline.spec.regions():
        job(region)
    arrays = Volume(brain.trust_map).arrays
    assert sum(array.size for array in arrays) * 4 == found.bytes_written == again.disk
    files = [f for f in brain.trust_map.rglob("c/**/*") if f.is_file()]
    assert 0 < len(files) <= found.files
    assert found.compare.block == (16, 16, 16)
    # 59 × 60 × 52 voxels.
    assert found.compare.blocks == 4 * 4 * 4
    assert read == found.compare.bytes_read


def test_the_time_of_the_map_is_that_of_the_work_that_is_left(planned, small_regions, monkeypatch):
    found = planned(train=DECONVOLVED).trust
    # Blocks of 16 with what the PSF of 9 voxels, and 2 voxels to interpolate between, need.
    assert found.compare.block_read[0] == 16 + 2 * (2 + found.compare.halo)
    one = planned(train=DECONVOLVED, trust={"cell": [8, 8, 8]}).trust
    assert one == found
    monkeypatch.setattr(planning.MapWork, "first", (0, 0))
    less = planned(train=DECONVOLVED).trust.compare
    assert less.seconds < found.compare.seconds
    assert less.seconds == pytest.approx(71 * 70 * 66 / less.rate / less.workers)
    judged = 36 * 70 * 66 / MAP_RATES.judging
    assert judged / less.workers < less.seconds < 20 * judged


def test_a_map_that_was_begun_is_gone_on_with(planned, tmp_path, cluster, monkeypatch, isosr):
    planned(train=DECONVOLVED)
    brain = make_volume(tmp_path, cluster)
    deconvolution_model(brain)
    restore(brain.store, str(brain.trained_model), brain.restored, brain.restore, cluster)
    paths = (brain.store, brain.restored, str(brain.trained_model))

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isosr_pipeline.steps.trust._summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trust(*paths, TrustSettings(device="cpu"), cluster, out=brain.trust_map)
    found = planned(train=DECONVOLVED).trust
    assert (found.regions_done, found.regions) == (1, 1)
    # Intensities are compared again.
    assert found.compare.seconds > 0
    monkeypatch.setattr("isosr_pipeline.steps.run.cluster_for", lambda *_, **__: cluster)
    assert isosr("run", tmp_path / "brain.yaml") == 0
    done = planned(train=DECONVOLVED)
    assert (done.trust, done.no_trust, done.disk) == (None, "", 0)


def test_where_no_map_is_made_the_plan_says_so(planned, tmp_path, cluster, capsys):
    assert planned(trust=False).no_trust == "none is asked for"
    between = planned(restore={"roi": "3:4,:,:", "block": "auto"})
    assert between.trust is None
    assert "shows z 3 to 3 of the isotropic grid" in between.no_trust
    show_plan(between)
    assert "trust    no map: " in capsys.readouterr().out
    brain = make_volume(tmp_path, cluster)
    make_model(brain)
    unknown = planned()
    assert unknown.trust is None
    assert "knows no blur that can be used" in unknown.no_trust
    assert planned(trust={"axial_fwhm": 3}).trust.blur == "Gaussian along z, FWHM 3 µm"


def test_a_blur_that_is_not_told_yet_leaves_the_time_open(planned, capsys):
    own = {"method": "self-blur", "width": 4, "crop": [32, 32, 32], "iterations": 1}
    found = planned(train=own)
    assert found.trust.compare is None
    assert found.trust.blur == "told from the volume in training"
    assert found.disk == sum(s.bytes_written for s in (found.convert, found.restore, found.trust))
    show_plan(found)
    assert "can't be told before the blur is" in capsys.readouterr().out
    given = planned(train={**own, "axial_fwhm": 3}).trust
    assert given.compare.halo == planned(train=own, trust={"axial_fwhm": 3}).trust.compare.halo


def test_people_and_programs_are_told_of_the_map(planned, tmp_path, isosr, capsys):
    found = planned(train=DECONVOLVED)
    assert isosr("plan", tmp_path / "brain.yaml", "--json") == 0
    told = json.loads(capsys.readouterr().out)["trust"]
    assert told == json.loads(found.trust.model_dump_json())
    assert isosr("plan", tmp_path / "brain.yaml") == 0
    shown = capsys.readouterr().out
    assert "of 8 × 8 × 8 voxels of what is restored" in shown
    assert f"of up to {' × '.join(map(str, found.trust.compare.block))}" in shown


def test_what_does_not_fit_is_refused_as_by_a_run(planned):
    with pytest.raises(InputError, match="cell is 1 voxels long along z"):
        planned(trust={"cell": [1, 8, 8]})
    with pytest.raises(InputError, match="channel 1 was asked for"):
        planned(trust={"channel": 1})


@pytest.mark.parametrize(
    ("blur", "halo"),
    [
        (KernelOf(np.full((5, 1, 1), 0.2, np.float32)), 2),
        (UntrainedBlur("ot-cyclegan", OTCycleGANSettings(width=4, iterations=1).parameters()), 6),
        (
            UntrainedBlur(
                "ot-cyclegan",
                OTCycleGANSettings(width=4, blur="unet", iterations=1).parameters(),
            ),
            26,
        ),
        (
            UntrainedBlur(
                "self-net", SelfNetSettings(width=4, blocks=0, iterations=1).parameters()
            ),
            None,
        ),
    ],
    ids=["kernel", "deep-linear", "unet", "self-net"],
)
def test_rates_are_measured_of_what_workers_will_do(blur, halo, monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 1e-9)
    monkeypatch.setattr(timing, "_EDGE", {"cpu": 64})
    blur = pickle.loads(pickle.dumps(blur))  # noqa: S301 - our own
    assert halo in (None, blur.load("cpu").function.halo)
    judged = []
    original = planning.judge_cells

    def counting(found, *others):
        judged.append(found.measured.shape)
        return original(found, *others)

    monkeypatch.setattr(planning, "judge_cells", counting)
    rates = planning._rates(blur, "cpu", 2.0, Zyx(8, 8, 8), Zyx(16, 24, 32))
    assert min(rates) > 0
    assert judged == [(8, 24, 32)]
    twice = rates.seconds(2 * rates.blurring, 0)
    assert twice == pytest.approx(2)


def test_the_rates_of_all_workers_are_averaged(monkeypatch):
    answers = [planning.Rates(3.0, 10.0), planning.Rates(5.0, 20.0)]
    monkeypatch.setattr(planning, "ask_all", lambda *_: answers)
    outline = type("Outline", (), {"planes": type("Planes", (), {"step": 1.0}), "cell": 8})
    assert planning.measure_rates(None, None, "cpu", outline, None) == (4.0, 15.0)
