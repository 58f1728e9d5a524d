"""The README's worked example runs as it stands, but for the time that training takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tifffile

from isosr_pipeline.brain import read_brain
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.site_files import read_site
from isosr_pipeline.store.volume import Volume

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_the_worked_example(tmp_path):
    image = simulate("neurites", (40, 96, 96), Acquisition(photons=1000), seed=1).image
    (tmp_path / "slices").mkdir()
    for z, plane in enumerate(image):
        tifffile.imwrite(tmp_path / "slices" / f"brain_{z}.tif", plane)
    (block,) = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    quick = block.replace("--minutes 30", "--iterations 2")
    assert quick != block
    script = Path(sys.executable).with_name("isosr-pipeline")
    shown = {}
    for line in quick.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "isosr-pipeline"
        done = subprocess.run(
            [script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        shown[arguments[0]] = done.stdout
    assert Volume(tmp_path / "restored.zarr").voxel_size == (2.0, 2.0, 2.0)
    assert "5 × 2 × 2 µm" in shown["info"]
    assert "axial/lateral ratio" in shown["evaluate"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_that_are_named_exist(page):
    known = "".join(
        path.read_text() for path in (ROOT / "pipeline" / "isosr_pipeline" / "cli").glob("*.py")
    )
    for option in set(re.findall(r"`(--[a-z0-9-]+)", page.read_text())):
        name = option.removeprefix("--").replace("-", "_")
        assert f'"{name}"' in known or f'"{option}"' in known, option


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_brains_and_sites_that_are_shown_can_be_read(page, tmp_path):
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL):
        path = tmp_path / "shown.yaml"
        path.write_text(textwrap.dedent(block))
        if re.search(r"^\s*source:", block, flags=re.MULTILINE):
            read_brain(path)
        else:
            read_site(path)
