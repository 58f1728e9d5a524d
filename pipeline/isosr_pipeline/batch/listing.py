"""The index that jobs keep up to date: which page a batch has, its brains, and its rewriting.

Each brain has a line of its own in its output (`lines`). Whoever changes one marks the page as
changed, and writes it again from all lines, one at a time; those who wait for that meanwhile find
that theirs is on it already, and leave. So a hundred brains that end at once cost a few rewritings.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from isosr_cluster.slurm.commands import Job
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.index import refuse_results, write_lines
from isosr_pipeline.batch.lines import standing, write_line
from isosr_pipeline.batch.overview import Overview
from isosr_pipeline.batch.records import read_record
from isosr_pipeline.errors import InputError, IsosrError, OutputPathError
from isosr_pipeline.evidence.distribution import Result
from isosr_pipeline.locking import lock
from isosr_pipeline.paths import check_creatable, make_folder, replacing
from isosr_pipeline.reporting.page import check_page, is_own_page

NAME = "index.html"
_BRAINS, _CHANGED, _LOCK = "brains.json", "changed", "lock"
_SECONDS_TO_WAIT = 45.0


class _Listed(Result):
    """A brain of the list, and its folder of results."""

    name: str
    output: Path


class _List(Result):
    """The brains of a page, in the order in which they came."""

    format: Literal[1] = 1
    brains: tuple[_Listed, ...] = ()

    def with_brains(self, entries: Sequence[Entry]) -> _List:
        """Return the list with brains at its end, but for those that are on it."""
        known = {one.output for one in self.brains}
        new = [_Listed(name=one.name, output=one.brain.output) for one in entries]
        return _List(brains=(*self.brains, *(one for one in new if one.output not in known)))


def find_place(entries: Sequence[Entry], given: Path | None) -> tuple[Path | None, str]:
    """Return where the index of a batch goes; changes nothing.

    That is where it was given; else where brains of the batch have theirs already, if that is one
    place; else ``index.html`` in the folder that all of their outputs lie in.

    Parameters
    ----------
    entries : sequence of Entry
    given : Path or None

    Returns
    -------
    path : Path or None
        None where it can't be written.
    remark : str
        Why it can't; else empty.

    Raises
    ------
    InputError
        When the place that was given can't be used.
    """
    if given is not None:
        path = given.absolute()
        _check_place(path, entries)
        check_page(path)
        return path, ""
    problems = []
    for path in _candidates(entries):
        try:
            _check_place(path, entries)
            _refuse_foreign(path)
        except InputError as error:
            problems.append(str(error))
        else:
            return path, ""
    why = "; ".join(dict.fromkeys(problems))
    return None, f"no index is kept ({why}); --index says where it may lie"


def _check_place(path: Path, entries: Sequence[Entry]) -> None:
    """Refuse a page that can't list these brains, or that this user can't keep.

    Raises
    ------
    InputError
    """
    for one in (path, *(entry.brain.output for entry in entries)):
        if not str(one).isprintable():
            raise InputError(
                f"{str(one)!r} has characters that can't be printed, and no index can hold; give "
                "another path"
            )
    refuse_results(entries, path)
    check_creatable(path, replace=True)
    kept = _kept_in(path)
    for one in (kept, kept / _LOCK, kept / _CHANGED):
        if os.access(one, os.F_OK) and not os.access(one, os.W_OK):
            raise OutputPathError(
                f"{path} is kept by somebody else: you may not write to {one}; give another path, "
                "or have its owner let you"
            )
    if path.exists() and not _may_replace(path, os.geteuid()):
        raise OutputPathError(
            f"{path} is somebody else's, in a folder in which each may replace only what is "
            "theirs; give another path"
        )


def _may_replace(path: Path, user: int) -> bool:
    folder = path.parent.stat()
    return not folder.st_mode & stat.S_ISVTX or user in (0, folder.st_uid, path.stat().st_uid)


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that is no page of this program.

    Raises
    ------
    InputError
    """
    # What submit keeps was given to it, whatever file was there.
    if path.exists() and not (_kept_in(path).is_dir() or is_own_page(path)):
        raise InputError(f"{path} is there, and is no page of isosr-pipeline; give another path")


def _candidates(entries: Sequence[Entry]) -> list[Path]:
    found = {path for entry in entries if (path := _recorded(entry))}
    known = [path for path in found if os.access(path.parent, os.F_OK)]
    folders = [entry.brain.output.absolute().parent for entry in entries]
    places = [Path(os.path.commonpath(folders)) / NAME, folders[0] / NAME]
    return list(dict.fromkeys([*(known if len(known) == 1 else []), *places]))


def _recorded(entry: Entry) -> Path | None:
    try:
        record = read_record(entry.brain.output)
    except (InputError, OSError):
        return None
    return record.index if record else None


def update(path: Path, entries: Sequence[Entry] = ()) -> None:
    """Look at brains again, and write the index with what is known of its others.

    Parameters
    ----------
    path : Path
        Of the index.
    entries : sequence of Entry
        Those to look at; one that is not listed yet is added.

    Raises
    ------
    InputError
        When it is no page of this program, can't be written, what is kept beside it can't be read,
        or no brain is named and nothing is kept.
    BusyError
        When others write it for so long that this is given up.
    """
    if not entries and not (_kept_in(path) / _BRAINS).is_file():
        raise InputError(f"{path} is no index that submit keeps; name its brains, or submit them")
    _check_place(path, entries)
    check_page(path)
    _refuse_foreign(path)
    for entry in entries:
        write_line(entry)
    rewrite(path, entries)


def rewrite(path: Path, entries: Sequence[Entry] = (), *, forget_gone: bool = False) -> None:
    """Write the index from the lines of its brains, unless somebody does so after this began.

    Parameters
    ----------
    path : Path
        Of the index.
    entries : sequence of Entry
        Those that are not listed yet are added.
    forget_gone : bool
        Whether others whose outputs were removed leave the list.

    Raises
    ------
    InputError
        When it can't be written, or what is kept beside it can't be read.
    BusyError
        See `update`.
    """
    kept = _kept_in(path)
    make_folder(kept)
    changed = kept / _CHANGED
    changed.touch()
    with (kept / _LOCK).open("ab") as file:
        busy = f"{path}: others write this index now; what changed is on it when they do so next"
        lock(file, path, busy, _SECONDS_TO_WAIT)
        brains = _keep_list(path, entries, forget_gone)
        if not changed.exists():
            return
        # Before the lines are read: what changes later is marked, and written, again.
        changed.unlink()
        try:
            write_lines(_standings(brains), path)
        except BaseException:
            changed.touch()
            raise


@contextmanager
def telling(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Tell of an index that can't be written, which is no reason to stop.

    Parameters
    ----------
    path : Path
    say : callable
        Shows a line.
    """
    try:
        yield
    except (IsosrError, OSError) as error:
        say(f"the index {path} is not written now: {error}")


def update_cancelled(
    entries: Sequence[Entry], ended: Mapping[str, Sequence[Job]], say: Callable[[str], None]
) -> None:
    """Have the pages of brains say which of them were cancelled.

    Parameters
    ----------
    entries : sequence of Entry
    ended : mapping of str to sequence of Job
        By the labels of the brains.
    say : callable
        Told of pages that can't be written.
    """
    pages: dict[Path, list[Entry]] = {}
    for entry in entries:
        index = _recorded(entry)
        if index is not None and ended[entry.label]:
            pages.setdefault(index, []).append(entry)
    for path, listed in pages.items():
        with telling(path, say):
            for entry in listed:
                write_line(entry, [job.id for job in ended[entry.label]])
            rewrite(path, listed)


def _kept_in(path: Path) -> Path:
    return path.with_name(f".{path.name}.brains")


def _keep_list(path: Path, entries: Sequence[Entry], forget_gone: bool) -> _List:
    """Return the brains of a page, those that are new with them, and keep that."""
    file = _kept_in(path) / _BRAINS
    try:
        known = _List.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        known = _List()
    except ValidationError as error:
        raise InputError(
            f"{file} is damaged or of another version of isosr-pipeline ({error.error_count()} "
            "errors); remove it, and submit the batch again to list its brains anew"
        ) from error
    found = known
    if forget_gone:
        found = _List(brains=tuple(one for one in known.brains if not _is_gone(one.output)))
    found = found.with_brains(entries)
    if found != known:
        with replacing(file) as partial:
            partial.write_text(f"{found.model_dump_json(indent=1)}\n", encoding="utf-8")
        # Who has just written the page may not have known of them.
        file.with_name(_CHANGED).touch()
    return found


def _is_gone(output: Path) -> bool:
    # Where the folder around it is not there either, a mount may be away just now.
    return os.access(output.parent, os.X_OK) and not os.access(output, os.F_OK)


def _standings(found: _List) -> list[Overview]:
    return [standing(one.name, one.output) for one in found.brains]
