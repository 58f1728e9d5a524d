"""Faults while a brain's trust map is made: after them map and summary are what they would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from faults import (
    LEDGER,
    Step,
    Undisturbed,
    assert_identical,
    ended,
    files_of,
    lines,
    until,
    workers_of,
)

from isosr_pipeline.brain import Brain, read_brain
from isosr_pipeline.cli import main
from isosr_pipeline.store.creation import remove_store
from isosr_pipeline.tiffs import write_tiff

SHAPE = (14, 16, 4608)
REGIONS = 18
"""Of 32 cells along x; too few cells along z and y for more."""

CONTENT = {
    "source": "blurred.tif",
    "output": "out",
    "train": {"method": "richardson-lucy", "axial_fwhm": 2, "iterations": 1},
    "restore": {"device": "cpu", "shard": 256},
    "trust": {"threshold": 0.3},
    "workers": 2,
}

Run = Callable[[], None]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain file."""
    folder = tmp_path_factory.mktemp("faults")
    image = np.random.default_rng(5).poisson(80, SHAPE).astype(np.uint16)
    image[6:8, 6:9, ::40] += 2000
    write_tiff(folder / "blurred.tif", image, (2.0, 1.0, 1.0))
    return folder / "brain.yaml"


@pytest.fixture(scope="module")
def run(client, file: Path) -> Run:
    """Run the brain in this process, on workers that are there: no start to wait for."""

    def run(**changes: object) -> None:
        file.write_text(yaml.safe_dump({**CONTENT, **changes}))
        command = ["isosr-pipeline", "run", str(file), "--cluster", client.scheduler.address]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as ending:
                main()
        assert not ending.value.code

    return run


@pytest.fixture(scope="module")
def step(file: Path) -> Step:
    return Step(("run",), ("--step", "evaluate"), ("--workers", "2"), file.parent / "scratch")


@pytest.fixture(scope="module")
def brain(run: Run, file: Path) -> Brain:
    """A brain of which all is done but the trust map."""
    run(trust=False)
    run()
    return read_brain(file)


@pytest.fixture(scope="module")
def undisturbed(brain: Brain) -> tuple[Undisturbed, bytes]:
    return Undisturbed(files_of(brain.trust_map), REGIONS), brain.trust_summary.read_bytes()


@pytest.fixture
def unmapped(brain: Brain, undisturbed: object) -> Brain:
    """The same brain without its map."""
    # A test that failed may have left either.
    if brain.trust_map.exists():
        remove_store(brain.trust_map)
    brain.trust_summary.unlink(missing_ok=True)
    return brain


def assert_same(brain: Brain, undisturbed: tuple[Undisturbed, bytes]) -> None:
    files, summary = undisturbed
    assert_identical(brain.trust_map, files)
    assert LEDGER not in files_of(brain.trust_map)
    assert brain.trust_summary.read_bytes() == summary


def test_the_stage_is_set(undisturbed):
    """Each region has cells of its own that are judged, and some are flagged."""
    files, summary = undisturbed
    shards = {name: files.files[name] for name in files.files if name.startswith("0/c/")}
    assert len(shards) == len(set(shards.values())) == REGIONS
    found = json.loads(summary)
    assert found["channels"][0]["cells"] > REGIONS
    assert len(found["worst"]) == 20


def test_a_map_whose_workers_are_killed_is_what_it_would_have_been(
    start, unmapped, undisturbed, file
):
    rng = np.random.default_rng(1)
    ledger = unmapped.trust_map / LEDGER
    process = start(file)
    for begun in (ledger.exists, lambda: lines(unmapped.trust_map) >= REGIONS // 3):
        until(begun, process, "a strike")
        until(lambda: bool(workers_of(process)), process, "a worker to strike")
        workers = workers_of(process)
        workers[rng.integers(len(workers))].kill()
    assert ledger.exists(), "the map was made before it was struck twice"
    shown = ended(process)
    assert process.returncode == 0, shown
    assert_same(unmapped, undisturbed)


def test_a_map_whose_driver_is_killed_is_gone_on_with(
    start, client, unmapped, undisturbed, file, run, capsys
):
    """Workers of another's cluster live on, and end the tasks that they were given."""
    process = start(file, where=("--cluster", client.scheduler.address))
    until(lambda: lines(unmapped.trust_map) >= REGIONS // 3, process, "a third of the regions")
    process.kill()
    ended(process)
    done = lines(unmapped.trust_map)
    assert REGIONS // 3 <= done < REGIONS
    assert not unmapped.trust_summary.exists()
    run()
    assert f"trust: {done} of {REGIONS} regions were done before" in capsys.readouterr().err
    assert_same(unmapped, undisturbed)


def test_a_map_that_is_complete_gives_the_summary_that_was_lost(brain, undisturbed, run, capsys):
    """As after a driver was killed between the last region and the summary."""
    brain.trust_summary.unlink()
    run()
    assert "restored.trust.zarr is complete already" in capsys.readouterr().err
    assert_same(brain, undisturbed)
