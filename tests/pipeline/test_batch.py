"""What of batches needs no SLURM: dry runs, frozen copies, places in the queue, logs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import BEGINS
from isosr_cluster.slurm.site import Site
from isosr_pipeline.batch.begun import as_begun, differences
from isosr_pipeline.batch.chains import Chain, Terms, jobs_of, script_of
from isosr_pipeline.batch.checking import check_chains
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.freezing import brain_copy, freeze, frozen_text
from isosr_pipeline.batch.lanes import InFlight, Lanes
from isosr_pipeline.batch.logs import ending, last_error
from isosr_pipeline.batch.records import locked
from isosr_pipeline.batch.submitting import _begin
from isosr_pipeline.batch.turns import own_turn
from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import BusyError, InputError
from isosr_pipeline.site_files import read_site
from isosr_pipeline.steps.run import STEPS

SITE = """
account: lab7
restarts: 3
setup: ["module load cuda  # 12", 'export X="a b"']
cpu: {partition: short, cores: 4, memory: 0.3 GB, walltime: "12:00:00", workers: 8}
gpu: {partition: gpu, cores: 8, memory: 64 GB, gpus: 2, gpu_type: a100, walltime: "2-00:00:00",
      constraint: "a100&nvlink", directives: ["--exclude=node[1-2]"]}
"""


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path


@pytest.fixture
def brain(tmp_path, monkeypatch):
    """Write a brain file with a source that is there."""
    # No SLURM of this machine's.
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / "a.tif").touch()

    def write(name: str, **keys: object) -> Path:
        content = {"source": "a.tif", "output": f"out/{name}", "train": {"iterations": 5}}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**content, **keys}))
        return path

    return write


def scripts(shown: str) -> dict[str, str]:
    """Return the scripts of a dry run, by what they are for."""
    parts = shown.split("#!/bin/bash\n")
    names = [part.rstrip().rpartition("\n")[2] for part in parts[:-1]]
    return {
        name.partition(":")[0].removeprefix("# "): script
        for name, script in zip(names, parts[1:], strict=True)
    }


def options(script: str) -> set[str]:
    return {x.removeprefix("#SBATCH ") for x in script.splitlines() if x.startswith("#SBATCH")}


def test_a_dry_run_prints_the_scripts_in_order_and_changes_nothing(
    isosr, brain, site, tmp_path, capsys
):
    files = [brain("one"), brain("two", model="m")]
    (tmp_path / "m").mkdir()
    assert isosr("submit", *files, "--site", site, "--dry-run") == 2
    assert f"{files[1]}: {tmp_path}/m is not a model" in capsys.readouterr().err
    files[1] = brain("two")
    before = sorted(tmp_path.rglob("*"))
    assert isosr("submit", *files, "--site", site, "--dry-run", "--max-brains", 1) == 0
    assert sorted(tmp_path.rglob("*")) == before
    found = scripts(capsys.readouterr().out)
    steps = ["convert", "train", "restore", "evaluate"]
    assert list(found) == [f"{name}, {step}" for name in ("one", "two") for step in steps]
    for script in found.values():
        assert subprocess.run(["/bin/bash", "-n"], input=script.encode()).returncode == 0
        assert 'module load cuda  # 12\nexport X="a b"\n' in script
        assert '[ "$queued" -ge 3 ]' in script
    assert not any("dependency" in x for x in options(found["one, convert"]))
    assert "--dependency=afterok:<convert of one>" in options(found["one, train"])
    assert "--dependency=afterany:<evaluate of one>" in options(found["two, convert"])
    assert "--dependency=afterok:<train of two>" in options(found["two, restore"])


def test_the_trust_map_is_made_where_the_volume_is_restored(brain, site):
    terms = Terms(read_site(site), site)
    for keys, sections in (
        ({}, {"cpu", "gpu"}),
        ({"restore": {"device": "cpu"}}, {"cpu"}),
        ({"trust": {"device": "cpu"}}, {"cpu"}),
        ({"trust": False}, {"cpu"}),
    ):
        described = read_brain(brain("one", **keys))
        assert {section for section, _ in jobs_of("evaluate", described, terms)} == sections
        # As the jobs of its chain read it, also where it says nothing.
        copy = brain("copy")
        copy.write_text(frozen_text(described, "one"))
        assert read_brain(copy) == described


def test_training_asks_for_a_gpu_and_the_other_steps_lead(isosr, brain, site, capsys):
    assert isosr("submit", brain("one"), "--site", site, "--workers", 3, "--dry-run") == 0
    found = scripts(capsys.readouterr().out)
    train, restore = options(found["one, train"]), options(found["one, restore"])
    assert train > {
        "--partition=gpu",
        "--gres=gpu:a100:2",
        "--cpus-per-task=8",
        "--mem=65536M",
        "--time=2-00:00:00",
        '--constraint="a100&nvlink"',
        "--exclude=node[1-2]",
        "--account=lab7",
        "--requeue",
        "--kill-on-invalid-dep=yes",
        "--signal=B:USR1@120",
    }
    # Rounded up: less than was asked for could end the job.
    assert restore > {"--partition=short", "--cpus-per-task=2", "--mem=308M"}
    assert not any("gres" in option for option in restore)
    (command,) = (x for x in found["one, restore"].splitlines() if "isosr_pipeline run" in x)
    assert command.endswith("/jobs/site.yaml --workers 3 &")
    (command,) = (x for x in found["one, train"].splitlines() if "isosr_pipeline run" in x)
    assert command.endswith("/jobs/brain.yaml --step train --cluster local &")


@pytest.mark.parametrize(
    ("keys", "without", "message"),
    [
        ({"source": "gone"}, "", "source: .*/gone does not exist"),
        ({"train": {}}, "", "training has no end"),
        ({"train": {"iterations": 1, "device": "cuda"}}, "gpu", "train.device is cuda, and the s"),
        ({"train": {"iterations": 1, "devices": 3}}, "", "devices is 3, .* has 2 GPUs"),
        ({"restore": {"device": "cuda"}}, "gpu", "restore.device is cuda, and the site file"),
        ({"trust": {"device": "cuda"}}, "gpu", "trust.device is cuda, and the site file"),
        ({"output": "a.tif"}, "", "a.tif is not a folder"),
        ({"output": "line\nbreak"}, "", "line break or a backslash"),
        ({"convert": {"channel_pattern": "${Y}"}}, "", r"\${X} is left after"),
    ],
)
def test_what_can_be_seen_at_once_is_refused_for_the_whole_batch(
    isosr, brain, site, tmp_path, capsys, monkeypatch, keys, without, message
):
    monkeypatch.setenv("Y", "${X}")
    described = yaml.safe_load(SITE.replace("12:00:00", "1-00:00:00"))
    described.pop(without, None)
    site.write_text(yaml.safe_dump(described))
    files = [brain("good"), brain("bad1", **keys), brain("bad2", source="lost.tif")]
    assert isosr("submit", *files, "--site", site, "--dry-run") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(f"{files[1]}: .*{message}", shown.err, re.DOTALL)
    assert f"{files[2]}: source: {tmp_path}/lost.tif does not exist" in shown.err
    assert str(files[0]) not in shown.err


def test_a_complete_store_that_was_made_in_another_way_is_refused(
    isosr, brain, site, tmp_path, capsys
):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 16, 16), np.uint16))
    one = {"voxel_size": 1}
    assert isosr("run", brain("a", convert=one), "--step", "convert", "--workers", 1) == 0
    assert isosr("submit", brain("a", convert=one), "--site", site, "--dry-run") == 0
    assert "--step convert" not in capsys.readouterr().out
    changed = brain("a", convert={**one, "median": 2})
    assert isosr("submit", changed, "--site", site, "--dry-run") == 2
    assert "median" in capsys.readouterr().err
    # A source that is gone can't be asked any more, and is not needed.
    (tmp_path / "a.tif").unlink()
    assert isosr("submit", brain("a", convert=one), "--site", site, "--dry-run") == 0


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "convert runs in jobs without GPUs"), ("cpu", "train.device is cpu, and the site")],
)
def test_a_site_of_gpus_alone_is_refused(isosr, brain, site, capsys, device, message):
    described = yaml.safe_load(SITE.replace("12:00:00", "1-00:00:00"))
    del described["cpu"]
    site.write_text(yaml.safe_dump(described))
    path = brain("one", train={"iterations": 1, "device": device})
    assert isosr("submit", path, "--site", site, "--dry-run") == 2
    assert message in capsys.readouterr().err


def test_frozen_copies_read_back_as_they_are(tmp_path, site, monkeypatch):
    monkeypatch.setenv("WHERE", "1e3")
    path = tmp_path / "brain.yaml"
    path.write_text("""
source: ${WHERE}/a.h5::x
output: ../out "quoted" µ
convert: {voxel_size: [5.5, 2, 2], channel_pattern: "${WHERE}", deskew: 45, rotate: true}
train: {preset: cfm, crop: 64, minutes: 1e-4, init: m, window: [1, 2], percentiles: 3}
restore: {roi: "0:2.5,:,:um", channel: 1, block: auto, window: [1, 2], precision: 32}
evaluate: {reference: t.tif}
""")
    brain = read_brain(path)
    frozen = tmp_path / "elsewhere" / "brain.yaml"
    frozen.parent.mkdir()
    frozen.write_text(frozen_text(brain, "brain"))
    monkeypatch.delenv("WHERE")
    assert read_brain(frozen) == brain

    frozen.write_text(frozen_text(read_site(site), "site"))
    assert read_site(frozen) == read_site(site)
    with pytest.raises(InputError, match=r"\${LATER} is left"):
        frozen_text(Site.model_validate({**yaml.safe_load(SITE), "scratch": "/x/${LATER}"}), "s")


def test_a_frozen_brain_says_the_device_that_its_training_gets(brain, site, tmp_path):
    described = read_brain(brain("one"))
    assert described.train.device == "auto"
    (described.output / "jobs").mkdir(parents=True)
    freeze(described, read_site(site))
    assert read_brain(brain_copy(described.output)).train.device == "cuda"


def test_lanes_hold_so_many_chains_and_no_more():
    free = Lanes(None, [in_flight("1"), in_flight("2")])
    free.add("3")
    assert free.before == []

    lanes = Lanes(2, [])
    waited = []
    for end in ("a", "b", "c", "d", "e"):
        waited.append(lanes.before)
        lanes.add(end)
    # Not only for the one before, which may be cancelled while an earlier one runs.
    assert waited == [[], [], ["a"], ["b"], ["a", "c"]]

    # One is in flight: one place is free, and the next waits for the one in flight.
    lanes = Lanes(2, [in_flight("x")])
    assert lanes.before == []
    lanes.add("a")
    assert lanes.before == ["x"]
    # It is submitted further.
    lanes.extend("x", "y")
    assert lanes.before == ["y"]

    # More are in flight than there are places: those that are too many must end, too.
    lanes = Lanes(2, [in_flight(end) for end in "12345"])
    assert lanes.before == ["1", "2", "3", "4"]
    lanes.add("a")
    assert lanes.before == ["1", "2", "3", "5"]
    lanes.extend("3", "6")
    assert lanes.before == ["1", "2", "6", "5"]

    # Of a to f in two lanes, e was cancelled: d waits for b, and f for both.
    now = [in_flight(*text) for text in ("a", "b", "ca", "db", "fbd")]
    assert Lanes(2, now).before == ["a", "c"]


def in_flight(end: str, *after: str) -> InFlight:
    return InFlight(end, frozenset(after))


EVENTS = st.sampled_from(["submit", "end", "cancel", "anew"])


@given(
    most=st.integers(1, 4),
    events=st.lists(
        st.tuples(st.sampled_from(["submit", "end", "cancel", "anew"]), st.integers(0, 99))
    ),
)
def test_whatever_ends_or_is_cancelled_there_are_never_too_many(most, events):
    waiting: dict[str, set[str]] = {}
    running: list[str] = []
    lanes, count = Lanes(most, []), 0

    def gone(end: str) -> None:
        for after in waiting.values():
            after.discard(end)
        for other in [other for other, after in waiting.items() if not after]:
            running.append(other)
            del waiting[other]

    for event, which in events:
        live = [*running, *waiting]
        if event == "submit":
            waiting[str(count)] = {end for end in lanes.before if end in live}
            lanes.add(str(count))
            count += 1
            gone("")
        elif event == "anew":
            chains = [in_flight(end, *waiting.get(end, ())) for end in sorted(live, key=int)]
            lanes = Lanes(most, chains)
        elif live:
            end = (running if event == "end" and running else live)[which % len(running or live)]
            if end in running:
                running.remove(end)
            waiting.pop(end, None)
            gone(end)
        assert len(running) <= most
        assert running or not waiting


def test_one_process_at_a_time_submits_a_brain(tmp_path):
    out = tmp_path / "out"
    with locked(out), pytest.raises(BusyError, match="another process submits or ends"):
        locked(out).__enter__()
    with locked(out):
        pass


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", None),
        (f"{BEGINS} job 1\n", None),
        # With its cause, and with what became of the job.
        (f"{BEGINS} job 1\nisosr-pipeline: a\nisosr-pipeline: b:\n  c\n", "b:\n  c"),
        (f"{BEGINS} job 1\nisosr-pipeline: a\nisosr-job: no\n", "a\nisosr-job: no"),
        # Of the latest run only.
        (f"{BEGINS} job 1\nisosr-pipeline: a\n{BEGINS} job 1\nKilled\n", "Killed"),
        (f"{BEGINS} job 1\n" + "\n".join("123456789"), "5\n6\n7\n8\n9"),
    ],
)
def test_the_last_message_of_a_log_is_its_error(tmp_path, text, error):
    log = tmp_path / "a.log"
    log.write_text(text)
    assert last_error(log) == error
    assert last_error(tmp_path / "none.log") is None


def test_how_a_job_ended_is_read_from_beside_its_log(tmp_path):
    log = tmp_path / "a.log"
    assert ending(log) is None
    for text, found in (("0\n", (0, "")), ("75 TERM\n", (75, "TERM")), ("", None)):
        (tmp_path / "a.log.exit").write_text(text)
        assert ending(log) == found


def test_a_brain_that_cannot_be_read_does_not_hide_the_others(isosr, brain, tmp_path, capsys):
    files = [brain(name) for name in ("record", "store", "model", "good")]
    for damaged in ("record/jobs.json", "store/volume.zarr/zarr.json", "model/model/checkpoint"):
        path = tmp_path / "out" / damaged
        path.parent.mkdir(parents=True)
        path.write_text("{")
    path.rename(path.with_suffix(".safetensors"))
    assert isosr("status", *files) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        [x, "unreadable"] for x in ("record", "store", "model")
    ]
    assert lines[3].split() == ["good", "convert", "not", "begun"]
    told = [line for line in lines if line.startswith("  error  ")]
    for name, line in zip(("jobs.json", "volume.zarr", "model"), told, strict=True):
        assert name in line

    assert isosr("status", *files, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found] == ["unreadable"] * 3 + ["not begun"]
    assert "jobs.json is damaged" in found[0]["problem"]
    assert isosr("status", *files[:3]) == 2
    assert isosr("status", files[1]) == 2


def test_a_brain_file_that_cannot_be_read_does_not_hide_the_others(isosr, brain, tmp_path, capsys):
    good, bad, gone = brain("good"), brain("bad", sauce="a.tif"), tmp_path / "gone.yaml"
    twice = brain("twice", output="out/good")
    files = [bad, good, gone, twice]
    assert isosr("status", *files) == 1
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert [line.split() for line in lines[:4]] == [
        [str(bad), "unreadable"],
        ["good", "convert", "not", "begun"],
        [str(gone), "unreadable"],
        [str(twice), "unreadable"],
    ]
    assert f"  error      {bad}: sauce: is not known; did you mean source" in shown
    assert f"  error      {gone} does not exist" in shown
    assert f"which is that of {good} too" in shown

    assert isosr("status", *files, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["state"], one["output"] is None) for one in found] == [
        ("unreadable", True),
        ("not begun", False),
        ("unreadable", True),
        ("unreadable", True),
    ]
    assert isosr("status", bad, gone) == 2
    assert "unreadable" in capsys.readouterr().out
    assert isosr("status", bad) == 2
    assert capsys.readouterr().err.startswith(f"isosr-pipeline: {bad}: sauce")


def test_a_line_of_a_table_that_cannot_be_read_does_not_hide_the_others(isosr, tmp_path, capsys):
    template, table = tmp_path / "batch.yaml", tmp_path / "brains.csv"
    template.write_text("source: a.tif\noutput: out/${brain}\nworkers: ${workers}\n")
    table.write_text("brain,workers\na,none\nb,2\n")
    assert isosr("status", "--template", template, "--table", table) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == f"{table}, line 2"
    assert lines[1].split() == ["b", "convert", "not", "begun"]


def test_status_of_brains_works_without_slurm(isosr, brain, tmp_path, capsys):
    files = [brain("one"), brain("two")]
    out = tmp_path / "out" / "one"
    (out / "logs").mkdir(parents=True)
    log = out / "logs" / "convert-7.log"
    log.write_text(f"{BEGINS} job 7\nisosr-pipeline: the slice is torn\n")
    log.with_name("convert-7.log.exit").write_text("1\n")
    job = {"step": "convert", "id": 7, "name": "c", "log": str(log), "script": "c.sh"}
    record = {"brain": "one", "site": "s.yaml", "submitted": "2030-01-01T00:00:00Z"}
    job["submitted"] = record["submitted"]
    (out / "jobs.json").write_text(json.dumps({"format": 1, **record, "jobs": [job]}))
    assert isosr("status", *files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["one", "convert", "failed"]
    assert lines[1].split() == ["two", "convert", "not", "begun"]
    assert "convert    failed with exit code 1 (job 7)" in lines
    assert "  error      the slice is torn" in lines
    assert f"  log        {log}" in lines
    assert not any("two (" in line for line in lines)

    assert isosr("status", *files, "--json") == 0
    one, two = json.loads(capsys.readouterr().out)
    assert one["steps"][0]["job"]["exit_code"] == 1
    assert (two["state"], two["steps"][0]["job"]) == ("not begun", None)
    assert isosr("status", files[0], "--json") == 0
    assert json.loads(capsys.readouterr().out) == one["steps"]

    assert isosr("status", files[0], tmp_path) == 2
    assert "is no brain file" in capsys.readouterr().err
    (out / "jobs.json").write_text('{"format": 2}')
    assert isosr("status", files[0]) == 2
    assert "jobs.json is damaged or of another version" in capsys.readouterr().err
    assert isosr("cancel", files[1]) == 1
    assert "squeue is not on the path" in capsys.readouterr().err


def test_one_submission_at_a_time_counts_brains_in_flight(
    isosr, brain, site, tmp_path, monkeypatch, capsys
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    file = brain("one")
    command = ("submit", file, "--site", site)
    with own_turn():
        assert isosr(*command, "--max-brains", 1) == 2
        assert "another submission with --max-brains runs now" in capsys.readouterr().err
        # Without, nothing is counted. There is no SLURM to ask for jobs.
        assert isosr(*command) == 1
        assert "squeue is not on the path" in capsys.readouterr().err
    assert isosr(*command, "--max-brains", 1) == 1
    assert "squeue is not on the path" in capsys.readouterr().err
    assert list(cache.rglob("*")) == [cache / "isosr-pipeline"]

    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isosr(*command, "--max-brains", 1) == 2
    assert "the lock of --max-brains lies there: XDG_CACHE_HOME" in capsys.readouterr().err


def test_what_is_submitted_later_is_as_what_was_submitted_first(brain, site, tmp_path):
    """A submission that was interrupted after its first job, and the brain's terms since."""
    file = brain("one")
    described = read_site(site)

    def entry() -> Entry:
        return Entry("one.yaml", read_brain(file))

    def chain(terms: Terms, live: bool = False) -> Chain:
        return Chain(entry(), terms, STEPS, {"convert": convert} if live else {})

    convert = Job(7, "RUNNING", "0:01", "1:00", "n1", "", f"{entry().tag}:convert", "convert-one")
    (tmp_path / "out" / "one" / "jobs").mkdir(parents=True)
    _begin(chain(Terms(described, site, workers=3)))

    def completed(terms: Terms) -> tuple[Chain, list[str]]:
        given = chain(terms, live=True)
        now = as_begun(given)
        _begin(now)
        check_chains([now])
        return now, differences(given, now)

    now, changed = completed(Terms(described, site))
    assert (now.terms.workers, changed) == (3, [])
    now, changed = completed(Terms(described, site, workers=3))
    assert (now.terms.workers, changed) == (3, [])

    brain("one", restore={"block": 64}, workers=5, cluster="site.yaml")
    # What is given now is not looked at: this site would have no jobs for convert.
    site.write_text(re.sub("\ncpu:.*", "", SITE.replace("restarts: 3", "restarts: 4")))
    now, changed = completed(Terms(read_site(site), site))
    assert (now.terms.workers, now.terms.site) == (3, described)
    assert now.entry.brain.restore.block == "auto"
    assert changed == ["the brain file", "the site file", "workers (now 5, and 3 then)"]
    assert "--workers 3 &" in script_of(now.entry, "restore", now.terms)

    # What run has queued is no part of it, whatever copies an earlier submission left.
    train = Job(8, "RUNNING", "0:01", "1:00", "n1", "", f"{entry().tag}:train", "isosr-train")
    foreign = Chain(entry(), Terms(described, site), STEPS[1:], {"train": train})
    with pytest.raises(InputError, match=r"run is at work on this brain \(train is job 8\)"):
        check_chains([as_begun(foreign)])

    # Once none of its jobs is left, the brain is as its file says.
    record = _begin(chain(Terms(read_site(site), site)))
    assert record.workers == 5
