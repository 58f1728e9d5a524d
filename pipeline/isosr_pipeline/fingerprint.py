"""Fingerprints of inputs: whether one has changed, without reading its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and time of change, or of a folder's names and sizes.

    A lost or damaged slice may be copied into a folder again, which changes its time alone.

    Parameters
    ----------
    path : Path
        A file, or a folder: its entries and those of its sub-folders count.
    """
    if path.is_file():
        found = path.stat()
        return _digest([f"{found.st_size} {found.st_mtime_ns}"])
    return _digest(
        f"{entry.relative_to(path)} {entry.stat().st_size if entry.is_file() else 'folder'}"
        for entry in _entries(path)
    )


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]


def _entries(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        yield entry
        if entry.is_dir():
            yield from sorted(entry.iterdir())
