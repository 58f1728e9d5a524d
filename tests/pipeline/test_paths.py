from __future__ import annotations

import errno

import pytest

from isosr_pipeline.errors import InputError, OutputPathError
from isosr_pipeline.paths import check_creatable, creating, make_folder, reading


@pytest.fixture
def unwritable(tmp_path):
    """Paths that the system refuses to create, whoever asks."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "broken").symlink_to("nowhere")
    return {
        "parent is a file": tmp_path / "file" / "out.zarr",
        "broken link": tmp_path / "broken",
        "parent is a broken link": tmp_path / "broken" / "out.zarr",
        "proc": "/proc/out.zarr",
        "name too long": tmp_path / f"{'n' * 300}.zarr",
        "partial name too long": tmp_path / f"{'n' * 245}.zarr",
        "parent too long": tmp_path / ("n" * 300) / "out.zarr",
    }


CASES = [
    "parent is a file",
    "broken link",
    "parent is a broken link",
    "proc",
    "name too long",
    "partial name too long",
    "parent too long",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["convert", "restore", "train"])
def test_outputs_that_cannot_be_made_exit_2_and_leave_nothing(
    isosr, make_store, noise, tmp_path, unwritable, capsys, case, command
):
    store = make_store(noise).path
    before = set(tmp_path.rglob("*"))
    arguments = {
        "convert": [store / "0", unwritable[case], "--voxel-size", 1],
        "restore": [store, "identity", unwritable[case]],
        "train": [store, unwritable[case], "--iterations", 1, "--crop", 32, "--width", 4],
    }[command]
    assert isosr(command, *arguments) == 2
    shown = capsys.readouterr().err
    assert "unexpected" not in shown
    assert "another path" in shown or "where you may write" in shown
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", ["broken link", "proc", "name too long", "partial name too long"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_simulations_that_cannot_be_written_exit_2(
    isosr, tmp_path, unwritable, capsys, case, options
):
    path = f"{unwritable[case]}.tif"
    if case == "broken link":
        (tmp_path / "broken.tif").symlink_to("nowhere")
    before = set(tmp_path.rglob("*"))
    assert isosr("simulate", path, "--shape", 16, *options) == 2
    assert "unexpected" not in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before


def test_what_exists_is_only_checked_when_it_is_replaced(tmp_path, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "store"
    path.mkdir()
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    check_creatable(path)
    for check in (
        lambda: check_creatable(path, replace=True),
        lambda: check_creatable(tmp_path / "new" / "deep"),
        lambda: make_folder(path),
    ):
        with pytest.raises(OutputPathError, match=r"Permission denied.*where you may write"):
            check()


def test_a_check_leaves_nothing(tmp_path):
    check_creatable(tmp_path / "a" / "b.zarr")
    assert list(tmp_path.iterdir()) == []
    make_folder(tmp_path / "a" / "b")
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b"]


def test_errors_that_say_enough_pass(tmp_path):
    for context in (creating, reading):
        with pytest.raises(InputError, match=r"^enough$"), context(tmp_path):
            raise InputError("enough")
    with pytest.raises(InputError, match=r"can't be read.*you may read it"), reading(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_errors_that_may_pass_are_left_to_be_tried_again(tmp_path):
    with pytest.raises(OSError, match="stale") as found, reading(tmp_path):
        raise OSError(errno.ESTALE, "stale file handle")
    assert not isinstance(found.value, InputError)
