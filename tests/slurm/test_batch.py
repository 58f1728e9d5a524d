"""A batch as a centre would run it: a template, a table, a site, and one brain that is broken."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from isosr_cluster.slurm import commands
from isosr_pipeline.store.volume import Volume

# More than half of a node's cores: two jobs of workers can't share a node.
WORKERS = {"cores": 5, "processes": 1, "memory": "3 GB", "walltime": "00:20:00", "workers": 2}
DRIVER = {"cores": 1, "memory": "2 GB", "walltime": "00:20:00"}
TEMPLATE = """
source: ${source}
output: results/${brain}
convert: {voxel_size: 1, chunk: 64, shard: 64}
train: {width: 4, crop: 48, planes: 4, iterations: 6, device: cpu}
restore: {chunk: 64, shard: 64}
trust: false
"""


@pytest.fixture
def batch(data, isosr, tmp_path) -> list[str]:
    """The options that name a batch of three: a real brain, a small one, and a broken one."""
    broken = tmp_path / "broken"
    broken.mkdir()
    slices = sorted((data / "axons_lightsheet").glob("*.tif"))
    for path in slices[:40]:
        shutil.copy(path, broken)
    torn = broken / slices[20].name
    torn.write_bytes(torn.read_bytes()[:5000])
    assert isosr("simulate", tmp_path / "small.tif", "--shape", 64) == 0
    sources = {"axons": data / "axons_lightsheet", "broken": broken, "small": "small.tif"}
    (tmp_path / "batch.yaml").write_text(TEMPLATE)
    rows = "".join(f"{name},{source}\n" for name, source in sources.items())
    (tmp_path / "brains.csv").write_text(f"brain,source\n{rows}")
    return ["--template", str(tmp_path / "batch.yaml"), "--table", str(tmp_path / "brains.csv")]


@pytest.fixture
def site(tmp_path) -> Path:
    path = tmp_path / "site.yaml"
    described = {"interface": "lo", "cpu": WORKERS, "driver": DRIVER}
    path.write_text(yaml.safe_dump(described))
    return path


def wait_for_end(seconds: float = 500) -> dict[int, commands.Job]:
    """Wait until no job is left; return all that there were."""
    until = time.monotonic() + seconds
    while any(not job.ended for job in commands.find_jobs().values()):
        assert time.monotonic() < until, commands.find_jobs()
        time.sleep(0.5)
    return commands.find_jobs()


def test_of_three_brains_two_finish_and_one_says_why(
    isosr, slurm, batch, site, data, tmp_path, capsys
):
    before = set(commands.find_jobs())
    assert isosr("submit", *batch, "--site", site) == 0
    found = [job for number, job in wait_for_end().items() if number not in before]
    capsys.readouterr()
    # A brain that has failed is told of; it is no failure to tell.
    assert isosr("status", *batch, "--json") == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["axons"]["state"] == told["small"]["state"] == "complete"
    (convert, *_) = told["broken"]["steps"]
    assert convert["job"]["state"] == "failed"
    slice_name = sorted((data / "axons_lightsheet").glob("*.tif"))[20].name
    assert slice_name in convert["job"]["error"]
    for name in ("axons", "small"):
        folder = tmp_path / "results" / name
        Volume(folder / "restored.zarr").require_complete()
        assert json.loads((folder / "evaluation.json").read_text())["after"]
    workers = [job for job in found if job.comment.endswith(":worker")]
    # A job that waits when its work is done never has a node.
    assert {job.node for job in workers} - {""} == {"n1", "n2"}
    # Drivers and workers leave nobody behind; the steps after the broken one never ran.
    broken = [job for job in found if job.name.endswith("-broken")]
    assert sorted(job.state for job in broken) == ["CANCELLED"] * 3 + ["FAILED"]
    # The last job of each brain, and the one that failed, have written the page of all three.
    page = _listed(tmp_path / "results" / "index.html")
    assert {name: state for name, (state, _) in page.items()} == {
        "axons": "evaluated",
        "broken": "convert failed",
        "small": "evaluated",
    }
    assert slice_name in page["broken"][1]
    assert list(tmp_path.glob("results/*/logs/*.report")) == []


def _listed(page: Path) -> dict[str, tuple[str, str]]:
    """Return the state of each brain that a page lists, with what it says of it."""
    rows = re.findall(
        r'<tr><td data-value="([^"]*)">.*?<td class="state" data-value="([^"]*)">(.*?)</td>',
        page.read_text(),
        re.DOTALL,
    )
    return {name: (state, told) for name, state, told in rows}
