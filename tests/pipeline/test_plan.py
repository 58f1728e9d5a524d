from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
import zarr
from plans import RATE, STEPS, make_model, make_volume

from isosr_models.architectures import UNet3dArchitecture
from isosr_models.restorers import NetworkRestorer
from isosr_models.unet import UNet3d
from isosr_pipeline.cli.plan_table import show_plan
from isosr_pipeline.errors import InputError, MissingInputError, ResumeError
from isosr_pipeline.geometry import Zyx
from isosr_pipeline.level_reader import LevelReader
from isosr_pipeline.progress import byte_count
from isosr_pipeline.restoring import timing
from isosr_pipeline.restoring.fitting import Fit
from isosr_pipeline.restoring.models import untrained
from isosr_pipeline.restoring.restoration import prepare
from isosr_pipeline.steps.restore import restore, restoring_job
from isosr_pipeline.store.creation import create_volume
from isosr_pipeline.store.metadata import StoreAttributes
from isosr_pipeline.store.volume import Volume

UNTRAINED = untrained(UNet3dArchitecture(width=2, residual=True))


def files_under(folder):
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def test_a_plan_is_the_same_before_and_after_its_steps_and_writes_nothing(
    planned, tmp_path, cluster
):
    before = planned()
    files = files_under(tmp_path)
    again = planned()
    # The brain file is written by this test.
    assert [f[0] for f in files_under(tmp_path)] == [f[0] for f in files]
    assert not (tmp_path / "out").exists()
    assert again == before
    brain = make_volume(tmp_path, cluster)
    files = files_under(brain.output)
    converted = planned()
    assert files_under(brain.output) == files
    assert converted.convert is None
    assert converted.restore == before.restore
    assert converted.disk == before.restore.bytes_written + before.trust.bytes_written
    assert converted.trust == before.trust
    make_model(brain)
    trained = planned()
    assert trained.train.state == "complete"
    model = str(brain.trained_model)
    assert trained.restore == before.restore.model_copy(update={"model": model})
    restore(brain.store, model, brain.restored, brain.restore, cluster)
    files = files_under(brain.output)
    done = planned()
    assert (done.convert, done.restore, done.disk) == (None, None, 0)
    assert files_under(brain.output) == files


def test_what_is_planned_is_what_is_done(planned, tmp_path, cluster, client, monkeypatch):
    found = planned()
    brain = make_volume(tmp_path, cluster)
    make_model(brain)
    read = 0
    original = LevelReader.read

    def counting(self, channel, box):
        nonlocal read
        lengths = zip(box.start, box.stop, (16, 16, 16), strict=True)
        # What was written is read, too, and compared.
        if brain.store in self._folder.parents:
            read += 2 * math.prod((-(-b // c) - a // c) * c for a, b, c in lengths)
        return original(self, channel, box)

    monkeypatch.setattr(LevelReader, "read", counting)
    # In this process, where it can be counted.
    restoration = prepare(brain.store, str(brain.trained_model), brain.restore)
    create_volume(brain.restored, restoration.spec, StoreAttributes())
    fit = Fit(None, 1.0, "32")
    job = restoring_job(restoration, brain.restored, restoration.scheme(1e10), fit, "32")
    for region in restoration.spec.regions():
        job(region)
    for path, step in ((brain.store, found.convert), (brain.restored, found.restore)):
        volume = Volume(path)
        arrays = volume.arrays
        assert volume.shape == step.shape
        assert volume.voxel_size == step.voxel_size
        assert (volume.chunk, volume.shard()) == (step.chunk, step.shard)
        assert sum(a.size for a in arrays) * 2 == step.bytes_written
        files = [f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json"]
        assert len(files) == step.files
    assert read == found.restore.bytes_read
    assert found.restore.read_redundancy == pytest.approx(read / (2 * 36 * 70 * 66))
    # 71 × 70 × 66 isotropic voxels in regions of 32, along z in blocks of 24 and 8.
    assert found.restore.shape == (1, 71, 70, 66)
    assert found.restore.regions == 27
    assert found.restore.blocks == 5 * 3 * 3
    assert found.convert.bytes_read == 2 * 36 * 70 * 66


def test_levels_of_the_pyramid_are_counted(planned, tmp_path, cluster):
    voxels = np.random.default_rng(2).integers(0, 4000, (20, 40, 300), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "long.tif", voxels)
    found = planned(source="long.tif").convert
    arrays = Volume(make_volume(tmp_path, cluster).store).arrays
    assert len(arrays) == 3
    assert found.bytes_written == 2 * sum(a.size for a in arrays)
    # The last level is made from the one before, which is made from what was just read.
    assert found.bytes_read == 2 * (voxels.size + arrays[1].size)
    assert found.files == sum(
        math.prod(-(-n // s) for n, s in zip(a.shape, a.shards, strict=True)) for a in arrays
    )


def test_the_time_is_that_of_the_work_that_is_left(planned, tmp_path, monkeypatch):
    found = planned().restore
    restorer = NetworkRestorer(UNet3d(4), "frozen", torch.device("cpu"))
    work = found.compute_redundancy * restorer.least_work * math.prod(found.shape)
    assert found.seconds == pytest.approx(work / RATE)
    voxels = math.prod(found.shape)
    assert found.rate == pytest.approx(voxels / found.seconds / found.workers)
    done = SimpleNamespace(name="restore", done=9)
    steps = {
        name: SimpleNamespace(step=name, state="not begun", path="", detail="", store=None)
        for name in ("convert", "train", "restore")
    }
    steps["restore"].store = SimpleNamespace(passes=[done, SimpleNamespace(name="level 1", done=1)])
    monkeypatch.setattr(f"{STEPS}.status_of_brain", lambda _brain: list(steps.values()))
    later = planned().restore
    assert later.regions_done == 9
    assert later.seconds == pytest.approx(found.seconds * 18 / 27)


def test_a_network_of_slices_is_planned_too(planned, capsys):
    own = {"method": "self-net", "width": 8, "blocks": 1, "critic_width": 4, "patch": 24}
    found = planned(train={**own, "crop": 32, "iterations": 3, "device": "cpu"})
    assert found.train.network == "2D ResNet of width 8 with 1 block on XZ and YZ slices"
    assert found.restore.halo == 12
    assert found.restore.compute_redundancy > 1
    show_plan(found)
    assert "2D ResNet of width 8" in capsys.readouterr().out


def test_a_region_is_one_workers(planned):
    many, one = planned().restore, planned(restore={"shard": 128}).restore
    assert (many.regions, one.regions, one.workers) == (27, 1, 2)
    work = one.compute_redundancy / many.compute_redundancy
    assert one.seconds == pytest.approx(2 * work * many.seconds)


def test_a_block_on_a_gpu_takes_its_memory_and_not_the_workers(planned, monkeypatch, capsys):
    on_cpu = planned().restore
    monkeypatch.setattr(f"{STEPS}.ask_workers", lambda *_: Fit(10**10, 1.5, "bf16"))
    found = planned(restore={"precision": "auto"})
    on_gpu = found.restore
    assert (on_gpu.on_gpu, on_gpu.precision) == (True, "bf16")
    assert on_gpu.block_memory == pytest.approx(1.5 * on_cpu.block_memory)
    assert on_gpu.block_memory_available == 6 * 10**9
    assert on_gpu.memory < on_cpu.memory
    show_plan(found)
    assert "GPU memory    " in capsys.readouterr().out


def test_the_page_on_planning_has_the_figures_of_its_brain(planned, tmp_path):
    root = Path(__file__).parents[2]
    script = root / "examples" / "empty_source.py"
    size = ("9000,27000,21000", "1,0.5,0.5")
    subprocess.run([sys.executable, script, tmp_path / "large.zarr", *size], check=True)
    found = planned(
        source="large.zarr",
        convert={"voxel_size": None, "chunk": 64, "shard": None},
        train={"width": 64, "crop": 132},
        restore={"chunk": 64, "shard": None, "block": [256, 256, 512]},
    )
    page = (root / "docs" / "planning.md").read_text()
    convert, restore, mapped = found.convert, found.restore, found.trust
    shown = "regions       {:,} of {} × {} × {}\n         files         {:,} at most"
    for one in (convert, restore, mapped):
        assert shown.format(one.regions, *one.region, one.files) in page
    assert f"writes        {byte_count(mapped.bytes_written)}, all levels" in page
    assert f"needed        {byte_count(found.disk)} at most" in page
    memory, computes, reads = (
        restore.block_memory,
        restore.compute_redundancy,
        restore.read_redundancy,
    )
    assert f"| {memory / 1e9:.1f} GB | {computes:.2f} × | {reads:.1f} × |" in page


def test_terabytes_are_planned_from_their_metadata(planned, tmp_path):
    zarr.create_array(
        tmp_path / "large.zarr", shape=(3000, 6000, 6000), chunks=(64, 64, 64), dtype="uint16"
    )
    large = {"chunk": 64, "shard": None}
    found = planned(
        source="large.zarr", convert=large, restore={**large, "shard": 192, "block": 192}
    )
    assert found.restore.shape == (1, 5999, 6000, 6000)
    assert found.restore.regions == found.restore.blocks == 32**3
    assert 0.4e12 < found.disk < 1e12
    assert found.convert.bytes_written < found.convert.bytes_read * 1.2
    assert 2 < found.restore.read_redundancy < 8
    assert "out has 100 GB free" in found.warnings[0]


def test_parts_channels_and_schemes(planned):
    part = planned(restore={"roi": "0:40,:,10:50", "block": "auto"}).restore
    assert part.shape == (1, 40, 70, 40)
    assert part.roi == ((0, 0, 10), (40, 70, 50))
    assert part.regions == part.blocks == 2 * 3 * 2
    assert part.block == (32, 32, 32)
    paper = planned(restore={"scheme": "paper", "block": "auto"}).restore
    assert (paper.blocks, paper.block_read, paper.halo) == (27, (160, 160, 160), 20)
    assert paper.compute_redundancy > 27 * 160**3 / (71 * 70 * 66) * 0.999
    assert paper.precision == "32"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": "gone.tif"}, MissingInputError, "gone.tif does not exist"),
        ({"restore": {"halos": 5}}, InputError, "restore.halos"),
        ({"restore": {"halo": 5}}, InputError, "receptive field of the model reaches 26"),
        ({"restore": {"roi": "0:400,:,:"}}, InputError, "voxel 0 to 400 of 71"),
        ({"restore": {"channel": 1}}, InputError, "has 1 channels, and channel 1"),
        ({"convert": {"voxel_size": [2, 1, 3]}}, InputError, "must be square"),
        ({"convert": {"shard": 40}}, InputError, "no whole number of chunks"),
        ({"train": {"crop": 144}}, InputError, "crop is 144 along z"),
        ({"output": "blurred.tif"}, InputError, "one lies in the other"),
    ],
)
def test_errors_are_those_of_a_run(planned, changes, error, message):
    with pytest.raises(error, match=message):
        planned(**changes)


def test_a_block_or_a_region_that_does_not_fit_is_refused(planned, monkeypatch):
    monkeypatch.setattr(f"{STEPS}.memory_of_block", lambda *_: 10**6)
    with pytest.raises(InputError, match=r"a task may use 0.0 GB .* smaller --block"):
        planned(restore={"block": "auto"})
    warned = planned().warnings
    assert [line for line in warned if "a block of 24 × 32 × 32 voxels takes 0.2 GB" in line]
    monkeypatch.setattr("isosr_pipeline.steps.convert.memory_per_task", lambda _client: 10**8)
    with pytest.raises(InputError, match=r"0.1 GB, and needs about .* smaller --shard"):
        planned()


def test_a_volume_that_was_made_in_another_way_is_refused(planned, tmp_path, cluster):
    planned()
    make_volume(tmp_path, cluster)
    with pytest.raises(ResumeError, match=r"voxel_size"):
        planned(convert={"voxel_size": [3, 1, 1]})


def test_a_disk_that_is_too_small_is_told(planned, monkeypatch):
    needed = planned().disk
    assert not planned().warnings
    usage = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=needed - 1))
    monkeypatch.setattr(f"{STEPS}.shutil", usage)
    (warning,) = planned().warnings
    assert "out has 992 kB free, and up to 992 kB are to be written" in warning


def test_people_and_programs_are_told(planned, tmp_path, isosr, capsys, cluster):
    found = planned()
    assert isosr("plan", tmp_path / "brain.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(found.model_dump_json())
    assert isosr("plan", tmp_path / "brain.yaml") == 0
    shown = capsys.readouterr().out
    assert "27 of 32 × 32 × 32" in shown
    assert "45 of up to 24 × 32 × 32, 80 × 88 × 88 with a halo of 26" in shown
    assert "3 iterations" in shown
    assert "untrained" in shown
    assert "992 kB at most" in shown
    make_volume(tmp_path, cluster)
    assert isosr("plan", tmp_path / "brain.yaml") == 0
    assert "convert  complete" in capsys.readouterr().out
    assert isosr("plan", tmp_path / "gone.yaml") == 2


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(90, "90.0 s"), (5000, "83 min 20 s"), (198000, "55.0 h"), (5.6e6, "65 days")],
)
def test_times_are_told_as_people_do(planned, seconds, shown, capsys):
    found = planned()
    restore = found.restore.model_copy(update={"seconds": seconds})
    show_plan(found.model_copy(update={"restore": restore}))
    assert f"about {shown} on 2 workers" in capsys.readouterr().out


@pytest.mark.parametrize(("statistics", "kept"), [("frozen", (40, 40, 9)), ("block", (56, 56, 9))])
def test_the_rate_is_the_work_of_a_small_block_over_its_time(monkeypatch, statistics, kept):
    # A first block takes longer; the last one takes it over the time for measuring.
    clock = iter([5.0, 6.0, 7.0, 7.5, 8.0, 8.75])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    seen = {}
    original = NetworkRestorer.__call__

    def counting(self, block, keep):
        seen["shape"] = tuple(block.shape[2:])
        seen["kept"] = tuple(k.stop - k.start for k in keep)
        seen["work"] = self.work(tuple([k] for k in keep), tuple([n] for n in block.shape[2:]))
        return original(self, block, keep)

    monkeypatch.setattr(NetworkRestorer, "__call__", counting)
    rate = timing._rate(UNTRAINED, "cpu", statistics, "32", Zyx(300, 120, 9))
    assert max(seen["shape"]) == 96
    assert seen["kept"] == kept
    assert rate == seen["work"] / 0.5


def test_the_rates_of_all_workers_add_up(monkeypatch):
    monkeypatch.setattr(timing, "ask_all", lambda *_: [7.0, 5.0])
    rate = timing.measure_rate(None, UNTRAINED, "cpu", "frozen", "32", Zyx(9, 9, 9))
    assert rate == 12.0


def test_workers_measure_a_network_that_is_not_trained(client):
    rate = timing.measure_rate(client, UNTRAINED, "cpu", "frozen", "32", Zyx(9, 9, 9))
    assert rate > 0


def test_the_folder_of_a_plan_may_be_missing(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{STEPS}.shutil", shutil)
    found = planned(output="not/yet/there")
    assert found.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert not Path(tmp_path / "not").exists()
