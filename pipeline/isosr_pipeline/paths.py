"""Paths that steps read and make: what the system refuses becomes an error with a remedy."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isosr_pipeline.errors import InputError, IsosrError, OutputPathError

_LASTING = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)


def partial_path(path: Path, suffix: str = "partial") -> Path:
    """Return a new hidden name next to a path, for what is not to be seen under its own."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{suffix}")


def find_partial(path: Path) -> Iterator[Path]:
    """Find what `partial_path` named for a path and was left behind, whatever its suffix.

    Parameters
    ----------
    path : Path
        Need not be there; its folder must.

    Returns
    -------
    iterator of Path
        Files and folders beside `path`.

    Raises
    ------
    OSError
        When the folder can't be listed.
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(partial|removed)")
    return (found for found in path.parent.iterdir() if name.fullmatch(found.name))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Name the output, and what to do, where the system refuses to create or replace it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputPathError
        In place of an OSError.
    """
    try:
        yield
    except IsosrError:
        raise
    except OSError as error:
        raise OutputPathError(
            f"{path} can't be written ({error.strerror or error}); give a path where you may "
            "write, with names that are not too long and space left"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file as a whole: under another name, which takes the place of it in the end.

    Parameters
    ----------
    path : Path

    Yields
    ------
    Path
        Where to write; gone if that fails.

    Raises
    ------
    OutputPathError
        When the system refuses to write it.
    """
    partial = partial_path(path)
    with creating(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the input, and what to do, where the system refuses to read it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        In place of an OSError that another attempt would meet again; others pass as they are.
    """
    try:
        yield
    except IsosrError:
        raise
    except OSError as error:
        if error.errno not in _LASTING:
            raise
        raise InputError(
            f"{path} can't be read ({error.strerror or error}); check its name and that you may "
            "read it"
        ) from error


def check_creatable(path: Path, *, replace: bool = False) -> None:
    """Refuse an output that could not be created, before any work is done for it.

    Leaves nothing behind: what is made to find out is removed at once.

    Parameters
    ----------
    path : Path
        Of a file or folder; its parent folders need not be there.
    replace : bool
        Whether something at `path` will be replaced; else only what is absent is checked.

    Raises
    ------
    OutputPathError
        When its folder can't be written to, is no folder, or a name is too long.
    """
    with creating(path):
        if path.is_symlink() and not path.exists():
            raise OutputPathError(
                f"{path} is a symbolic link to what does not exist; remove the link or give "
                "another path"
            )
        if path.exists() and not replace:
            return
        folder = next(p for p in path.absolute().parents if os.path.lexists(p))
        if not folder.is_dir():
            raise OutputPathError(
                f"{path} can't be written: {folder} is not a folder; give another path"
            )
        _try(folder / partial_path(path).name)


def make_folder(path: Path) -> None:
    """Make a folder for outputs if need be, and check that it can be written to.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputPathError
        When it can't be made or written to.
    """
    with creating(path):
        path.mkdir(parents=True, exist_ok=True)
        _try(partial_path(path / "probe"))


@contextmanager
def there_meanwhile(folder: Path) -> Iterator[None]:
    """Make a folder if need be, with those above it, and remove at the end what was made.

    What somebody else has put something into by then stays.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    OutputPathError
        When it can't be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with creating(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _try(probe: Path) -> None:
    # Permissions alone don't tell: file systems may be read-only, full or virtual.
    probe.mkdir()
    probe.rmdir()
