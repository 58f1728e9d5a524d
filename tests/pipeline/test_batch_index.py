"""The index of a batch that submit and its jobs keep up to date, without SLURM."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import BEGINS, exit_file
from isosr_pipeline.batch import lines, listing
from isosr_pipeline.batch.chains import script_path
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.lines import standing, write_line
from isosr_pipeline.batch.listing import find_place, rewrite, update, update_cancelled
from isosr_pipeline.batch.records import read_record
from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.results import Evaluation, Figures
from isosr_pipeline.locking import lock
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.steps.run import STEPS

SITE = """
python: {python}
cpu: {{cores: 4, memory: 1 GB, walltime: "12:00:00"}}
"""


@pytest.fixture
def entry(tmp_path):
    """Describe a brain whose source is there."""
    (tmp_path / "a.tif").touch()

    def entry(name: str, **keys: object) -> Entry:
        train = {"iterations": 5, "device": "cpu"}
        content = {"source": "a.tif", "output": f"out/{name}", "train": train, "trust": False}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**content, **keys}))
        return Entry(str(path), read_brain(path))

    return entry


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(SITE.format(python=tmp_path / "python"))
    return path


@pytest.fixture
def taken(monkeypatch):
    """Stand in for a SLURM that takes all jobs and runs none; the scripts that it took."""
    scripts: list[str] = []
    numbers = itertools.count(11)
    monkeypatch.setattr(commands, "find_jobs", lambda: {})
    monkeypatch.setattr(commands, "is_available", lambda: False)
    monkeypatch.setattr(commands, "check", lambda _: None)
    monkeypatch.setattr("isosr_pipeline.batch.checking.refuse_too_long", lambda *_: None)
    monkeypatch.setattr(commands, "submit", lambda script: scripts.append(script) or next(numbers))
    return scripts


@pytest.fixture
def evaluate(make_store):
    """Put results of one brain into the outputs of others."""
    voxels = np.random.default_rng(0).integers(0, 99, (20, 24, 22), np.uint16)
    volume = make_store(voxels).path
    nothing = dict.fromkeys(
        ("sharpness", "correlation", "spectra", "extremes", "against_reference"), None
    )

    def evaluate(entry: Entry, ratio: float) -> None:
        brain = entry.brain
        for path in (brain.store, brain.restored):
            shutil.copytree(volume, path)
        brain.trained_model.mkdir()
        (brain.trained_model / "model.json").touch()
        found = Evaluation(
            store=str(brain.store),
            restored=str(brain.restored),
            settings=EvaluateSettings(),
            shape=(20, 24, 22),
            voxel_size_um=(1, 1, 1),
            sampling=None,
            before=Figures(axial_lateral_ratio=0.5, **nothing),
            after=Figures(axial_lateral_ratio=ratio, **nothing),
            rois=None,
            drift=None,
            counts=None,
            seams=None,
            spots=None,
        )
        brain.evaluation.write_text(found.model_dump_json())
        brain.report.write_text("<title>a report</title>")

    return evaluate


def shown(page: Path) -> dict[str, tuple[str, str]]:
    """Return the state of each brain of a page, and why it is no further."""
    rows = re.findall(
        r'<tr><td data-value="([^"]*)">.*?<td class="state" data-value="([^"]*)">(.*?)</td>',
        page.read_text(),
        re.DOTALL,
    )
    return {
        unescape(name): (state, unescape(why.partition('class="why">')[2].partition("<")[0]))
        for name, state, why in rows
    }


def ended(entry: Entry, step: str, told: str, log: str = "") -> None:
    """Leave what a job leaves that has ended."""
    path = read_record(entry.brain.output).job(step).log
    path.write_text(f"{BEGINS} job\n{log}")
    exit_file(path).write_text(f"{told}\n")


def test_submit_makes_the_page_and_keeps_it_through_later_ones(
    isosr, taken, entry, site, tmp_path, capsys
):
    files = [Path(entry(name).label) for name in ("a", "b", "c")]
    page = tmp_path / "out" / "index.html"
    assert isosr("submit", *files, "--site", site, "--dry-run") == 0
    dry = capsys.readouterr().out
    assert dry.startswith(f"# index: {page}\n")
    assert not page.parent.exists()
    assert isosr("submit", *files, "--site", site) == 0
    assert f"index: {page}\n12 jobs submitted\n" in capsys.readouterr().out
    assert shown(page) == dict.fromkeys("abc", ("convert waiting", ""))
    # Scripts are as they were shown, but for the numbers of jobs.
    for script in taken:
        without = re.sub("--dependency=.*", "", script)
        assert without in re.sub("--dependency=.*", "", dry)
        command = rf"report {tmp_path}/out/[abc]/jobs/brain.yaml --index {page} --update "
        assert re.search(command, script)
    # One of them again, by itself: it stays where it is, and hides no other.
    ended(entry("b"), "convert", 1, "isosr-pipeline: the slice is torn\n")
    assert isosr("submit", files[1], "--site", site) == 0
    assert shown(page)["b"] == ("convert waiting", "")
    assert set(shown(page)) == {"a", "b", "c"}
    # What is gone leaves with the next submission; meanwhile it is told.
    shutil.rmtree(tmp_path / "out" / "c")
    rewrite(page)
    assert shown(page)["c"] == ("gone", f"{tmp_path}/out/c is not there")
    assert isosr("submit", files[0], "--site", site) == 0
    assert set(shown(page)) == {"a", "b"}


def test_a_page_that_cannot_be_written_stops_no_brain(isosr, taken, entry, site, tmp_path, capsys):
    file = Path(entry("a").label)
    kept = tmp_path / "out" / ".index.html.brains"
    kept.parent.mkdir()
    kept.touch()
    assert isosr("submit", file, "--site", site) == 0
    said = capsys.readouterr().out
    assert "out/index.html is not written now" in said
    assert f"index: {tmp_path}" not in said
    assert len(taken) == 4
    # One that was asked for and can't be is refused before anything is submitted.
    wrong = tmp_path / "out" / "a" / "report.html"
    assert isosr("submit", Path(entry("b").label), "--site", site, "--index", tmp_path / "x") == 2
    assert isosr("submit", file, "--site", site, "--index", wrong) == 2
    assert "one lies in the other" in capsys.readouterr().err
    assert len(taken) == 4


def test_the_page_lies_in_the_folder_of_all_outputs(entry, tmp_path):
    brains = [entry("a"), entry("b", output="out/deep/b")]
    page = tmp_path / "out" / "index.html"
    assert find_place(brains, None) == (page, "")
    assert find_place(brains[1:], None) == (tmp_path / "out" / "deep" / "index.html", "")
    # A page of somebody else's is left alone; the first brain's folder would be another place.
    page.parent.mkdir()
    page.write_text("<title>my home page</title>")
    place, remark = find_place(brains, None)
    assert place is None
    assert "is no page of isosr-pipeline" in remark
    assert find_place(brains, tmp_path / "other.html") == (tmp_path / "other.html", "")
    # Nor is what can't be read looked into.
    page.unlink()
    page.mkdir()
    assert "Is a directory" in find_place(brains, None)[1]
    page.rmdir()
    update(page, brains[:1])
    assert find_place(brains, None) == (page, "")


def test_a_page_that_somebody_else_keeps_is_left_to_them(entry, tmp_path, monkeypatch):
    brains = [entry("a")]
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    update(page, brains)
    with monkeypatch.context() as patch:
        access = os.access
        own = page.with_name(".index.html.brains") / "lock"
        patch.setattr(os, "access", lambda p, mode: access(p, mode) and (p, mode) != (own, os.W_OK))
        place, remark = find_place(brains, None)
        assert place is None
        assert f"is kept by somebody else: you may not write to {own}" in remark
        with pytest.raises(InputError, match="is kept by somebody else"):
            find_place(brains, page)
    page.parent.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: page.stat().st_uid + 1)
    assert "may replace only what is theirs" in find_place(brains, None)[1]
    page.parent.chmod(0o777)
    assert find_place(brains, None) == (page, "")


def test_no_index_holds_paths_that_cannot_be_printed(entry, tmp_path):
    found = entry("a")
    output = tmp_path / "out\udcff" / "a"
    odd = Entry(found.label, found.brain.model_copy(update={"output": output}))
    place, remark = find_place([odd], None)
    assert place is None
    assert "can't be printed" in remark
    assert remark.isprintable()
    with pytest.raises(InputError, match="can't be printed"):
        update(tmp_path / "index.html", [odd])


def test_an_update_replaces_pages_of_this_program_alone(entry, tmp_path):
    brain = entry("a")
    for name, content, problem in (
        ("notes.txt", "notes", "a page is written as .html"),
        ("a.yaml", None, "a page is written as .html"),
        ("home.html", "<title>my home page</title>", "is no page of isosr-pipeline"),
    ):
        path = tmp_path / name
        if content:
            path.write_text(content)
        before = path.read_bytes()
        with pytest.raises(InputError, match=problem):
            update(path, [brain])
        assert path.read_bytes() == before
    with pytest.raises(InputError, match="make it first"):
        update(tmp_path / "new" / "folder" / "index.html", [brain])
    assert not (tmp_path / "new").exists()
    assert not brain.brain.output.exists()


def test_brains_in_flight_stay_on_their_page(
    isosr, taken, entry, site, tmp_path, capsys, monkeypatch
):
    brain = entry("a")
    assert isosr("submit", brain.label, "--site", site) == 0
    record = read_record(brain.brain.output)
    jobs = {
        job.id: Job(job.id, "PENDING", "", "", "", "", f"{brain.tag}:{job.step}", job.name)
        for job in record.jobs
    }
    monkeypatch.setattr(commands, "find_jobs", lambda: jobs)
    capsys.readouterr()
    page, other = tmp_path / "out" / "index.html", tmp_path / "other.html"
    assert isosr("submit", brain.label, "--site", site, "--index", other) == 0
    said = capsys.readouterr().out
    assert f"does not count: index (now {other}, and {page} then)" in said
    assert "a: in flight already" in said
    assert "not written" not in said
    assert shown(other) == {"a": ("convert waiting", "")}
    assert read_record(brain.brain.output).index == page


def test_a_line_that_tells_of_what_could_not_be_read_is_not_current(entry, evaluate):
    brain = entry("a")
    evaluate(brain, 0.9)
    line = lines.line_path(brain.brain.output)
    content = brain.brain.evaluation.read_bytes()
    for damage in (
        lambda: line.write_text("{"),
        lambda: line.write_text('{"overview": {"name": "a", "state": "unreadable"}, "step": null}'),
        lambda: (brain.brain.evaluation.write_text("{"), write_line(brain)),
    ):
        write_line(brain)
        assert lines.is_current(brain)
        damage()
        brain.brain.evaluation.write_bytes(content)
        for made in (brain.brain.evaluation, brain.brain.report):
            os.utime(made, (line.stat().st_mtime,) * 2)
        assert not lines.is_current(brain)


def test_figures_of_an_earlier_restoration_are_left_out(entry, evaluate, tmp_path):
    brain = entry("a")
    evaluate(brain, 0.9)
    later = brain.brain.evaluation.stat().st_mtime + 9
    os.utime(brain.brain.restored / "zarr.json", (later, later))
    write_line(brain)
    found = standing("a", brain.brain.output)
    assert (found.state, found.figures) == ("evaluate not begun", {})


def test_a_job_that_fails_after_the_figures_is_told_on_either_page(
    isosr, taken, entry, evaluate, site, tmp_path
):
    brain = entry("a")
    assert isosr("submit", brain.label, "--site", site) == 0
    evaluate(brain, 0.9)
    brain.brain.report.unlink()
    for step in STEPS:
        ended(brain, step, 0)
    page, other = tmp_path / "out" / "index.html", tmp_path / "other.html"
    update(page, [brain])
    assert isosr("report", brain.label, "--index", other) == 0
    assert shown(page) == shown(other) == {"a": ("evaluated", "")}
    error = "isosr-pipeline: " + "".join(f"line {number}\n" for number in range(1000))
    ended(brain, "evaluate", 1, error + "x" * 10_000)
    rewrite(page)
    assert isosr("report", brain.label, "--index", other) == 0
    assert shown(page) == shown(other)
    state, why = shown(page)["a"]
    assert state == "evaluate failed"
    assert why.startswith("line 0\n")
    log = read_record(brain.brain.output).job("evaluate").log
    assert f"\n… 961 more lines are in {log}\n" in why
    assert len(why) < 1500
    assert 'data-value="0.9"' in page.read_text()


def test_a_brain_whose_mount_is_away_stays_on_the_list(entry, tmp_path):
    page = tmp_path / "index.html"
    update(page, [entry("a"), entry("b", output="mount/results/b")])
    (tmp_path / "mount").rename(tmp_path / "away")
    rewrite(page, forget_gone=True)
    assert shown(page)["b"] == ("gone", f"{tmp_path}/mount/results/b is not there")
    (tmp_path / "mount" / "results").mkdir(parents=True)
    rewrite(page, forget_gone=True)
    assert set(shown(page)) == {"a"}


def test_states_come_from_the_files_of_jobs_and_pictures_are_made_once(
    isosr, taken, entry, evaluate, site, tmp_path, monkeypatch
):
    brains = [entry(name) for name in ("a", "b", "c")]
    assert isosr("submit", *(brain.label for brain in brains), "--site", site) == 0
    a, b, c = brains
    page = tmp_path / "out" / "index.html"
    for step in STEPS:
        ended(a, step, 0)
    evaluate(a, 0.9)
    update(page, [a])
    ended(b, "convert", 0)
    read_record(b.brain.output).job("train").log.touch()
    ended(c, "convert", "75 TERM")
    monkeypatch.setattr(lines, "overview", lambda *_: pytest.fail("a brain is looked at again"))
    rewrite(page)
    assert shown(page) == {
        "a": ("evaluated", ""),
        "b": ("train running", ""),
        "c": ("convert cancelled", ""),
    }
    assert page.read_text().count("data:image/png") == 2
    assert 'data-value="0.9"' in page.read_text()
    assert 'href="./a/report.html"' in page.read_text()
    ended(b, "train", 137, "isosr-pipeline: no memory\n  is left\n")
    # One that is damaged does not hide the others.
    (c.brain.output / "jobs.json").write_text("{")
    assert isosr("report", "--index", page, "--update") == 0
    assert shown(page)["b"] == ("train failed", "no memory\n  is left")
    assert shown(page)["c"][0] == "unreadable"
    assert "jobs.json is damaged" in shown(page)["c"][1]
    # Without what it has left, its jobs tell.
    (b.brain.output / "jobs" / "overview.json").write_text("{")
    rewrite(page)
    assert shown(page)["b"] == ("train failed", "no memory\n  is left")


def test_jobs_that_were_cancelled_while_they_waited_are_told(isosr, taken, entry, site, tmp_path):
    brains = [entry("a"), entry("b")]
    assert isosr("submit", *(brain.label for brain in brains), "--site", site) == 0
    job = Job(11, "PENDING", "", "", "", "", f"{brains[0].tag}:convert", "convert-a")
    said: list[str] = []
    update_cancelled(brains, {brains[0].label: [job], brains[1].label: []}, said.append)
    page = tmp_path / "out" / "index.html"
    assert shown(page) == {"a": ("convert cancelled", ""), "b": ("convert waiting", "")}
    # Its next jobs are others.
    assert isosr("submit", brains[0].label, "--site", site) == 0
    assert shown(page)["a"] == ("convert waiting", "")
    assert said == []


def test_brains_that_end_at_once_are_all_on_the_page(entry, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("isosr_pipeline.locking._SECONDS_BETWEEN_TRIES", 0.02)
    brains = [entry(f"brain{number}") for number in range(12)]
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    update(page, brains)
    for brain in brains:
        evaluate(brain, 0.9)
    together = threading.Barrier(len(brains))

    def end(brain: Entry) -> None:
        together.wait()
        update(page, [brain])

    with ThreadPoolExecutor(len(brains)) as pool:
        list(pool.map(end, brains))
    assert shown(page) == {brain.name: ("evaluated", "") for brain in brains}
    assert sorted(path.name for path in page.parent.glob(".*")) == [".index.html.brains"]


def test_who_waits_writes_only_what_nobody_has_written_meanwhile(entry, tmp_path, monkeypatch):
    monkeypatch.setattr("isosr_pipeline.locking._SECONDS_BETWEEN_TRIES", 0.02)
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    update(page, [entry("a")])
    written = []
    monkeypatch.setattr(listing, "write_lines", lambda found, _: written.append(len(found)))
    kept = page.with_name(".index.html.brains")
    for brains, expected in (([entry("a")], []), ([entry("b")], [2])):
        with (kept / "lock").open("ab") as file:
            lock(file, kept, "held")
            other = threading.Thread(target=rewrite, args=(page, brains))
            other.start()
            while not (kept / "changed").exists():
                threading.Event().wait(0.01)
            # As whoever holds the lock does before reading.
            (kept / "changed").unlink()
        other.join()
        assert written == expected
    # A page that could not be written is written by the next who comes.
    monkeypatch.setattr(listing, "write_lines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rewrite(page)
    assert (kept / "changed").exists()


def test_an_index_that_nobody_keeps_is_not_updated(isosr, tmp_path, capsys):
    assert isosr("report", "--index", tmp_path / "index.html", "--update") == 2
    assert "no index that submit keeps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".index.html.brains").mkdir()
    (tmp_path / ".index.html.brains" / "brains.json").write_text("{")
    with pytest.raises(InputError, match=r"brains.json is damaged"):
        rewrite(tmp_path / "index.html")


PYTHON = """#!/bin/bash
# What the step does is given; what reports it is the program.
case "$*" in
*" run "*) echo "isosr-pipeline: the slice is torn" >&2; {signal}; exit {code};;
*) {report};;
esac
"""


@pytest.mark.parametrize(
    ("step", "code", "signal", "reported"),
    [
        ("convert", 1, "", True),
        ("convert", 0, "", False),
        ("evaluate", 0, "", True),
        # Whoever cancels it reports that; there is little time left here.
        ("evaluate", 75, "TERM", False),
        # That fails itself.
        ("train", 1, "", None),
    ],
)
def test_a_job_that_ends_reports_it_and_is_as_it_was(
    isosr, taken, entry, site, tmp_path, step, code, signal, reported
):
    brain = entry("a")
    assert isosr("submit", brain.label, "--site", site) == 0
    page = tmp_path / "out" / "index.html"
    page.unlink()
    python = tmp_path / "python"
    program = f'exec {sys.executable} "$@"' if step == "convert" else f'echo "$@" > {page}'
    python.write_text(
        PYTHON.format(
            signal=f"trap '' {signal}; kill -{signal} $PPID" if signal else ":",
            code=code,
            report="echo no; exit 9" if reported is None else program,
        )
    )
    python.chmod(0o755)
    number = str(read_record(brain.brain.output).job(step).id)
    log = read_record(brain.brain.output).job(step).log
    with log.open("w") as file:
        done = subprocess.run(
            ["/bin/bash", script_path(brain.brain.output, step)],
            env={**os.environ, "SLURM_JOB_ID": number},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    assert done.returncode == code
    assert exit_file(log).read_text().strip() == f"{code} {signal}".strip()
    assert log.read_text().splitlines()[1:] == ["isosr-pipeline: the slice is torn"]
    assert page.exists() == bool(reported)
    said = log.with_name(f"{log.name}.report")
    assert (said.read_text() if said.exists() else None) == ("no\n" if reported is None else None)
    if step == "convert" and reported:
        assert shown(page) == {"a": ("convert failed", "the slice is torn")}


def test_a_brain_that_is_complete_without_jobs_is_evaluated(entry, evaluate):
    brain = entry("a")
    evaluate(brain, float("inf"))
    write_line(brain)
    found = standing("a", brain.brain.output)
    assert (found.state, found.figures["axial/lateral ratio"]) == ("evaluated", (0.5, float("inf")))
