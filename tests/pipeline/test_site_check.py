"""What of a site check needs no SLURM: the folder for outputs, and what a worker looks at."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import yaml

from isosr_cluster.slurm.site import Site
from isosr_pipeline.probing import Probe, common_versions
from isosr_pipeline.steps.site_check import check_site

JOB = {"cores": 1, "memory": "1 GB", "walltime": "00:10:00"}


@pytest.fixture
def files_of_a_mebibyte() -> Iterator[None]:
    """Let this process write no larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_a_check_has_made_is_removed(isosr, tmp_path, monkeypatch, capsys):
    # No SLURM of this machine's.
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump({"cpu": JOB}))
    (tmp_path / "there").mkdir()
    for output in (tmp_path / "there", tmp_path / "there" / "new" / "results"):
        assert isosr("site", "check", site, "--output", output) == 1
        assert "sbatch is not on the path" in capsys.readouterr().out
        assert sorted(tmp_path.rglob("*")) == [site, tmp_path / "there"]


def test_what_somebody_puts_into_the_folder_meanwhile_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    folder = tmp_path / "new" / "results"
    for finding in check_site(Site.model_validate({"cpu": JOB}), folder):
        assert finding.problems
        (tmp_path / "new" / "mine").touch()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "new", tmp_path / "new" / "mine"]


def test_a_probe_writes_a_mebibyte_to_scratch(tmp_path, monkeypatch, files_of_a_mebibyte):
    monkeypatch.setenv("ISOSR_SCRATCH", str(tmp_path))
    (tmp_path / "token").write_text("here")
    found = Probe(tmp_path / "token", False, common_versions())()
    assert found.problems == ()
    assert found.answer is not None
    assert found.answer.read_text() == "here"
