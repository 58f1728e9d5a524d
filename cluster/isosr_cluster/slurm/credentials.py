"""Credentials by which a driver and its workers know each other, for as long as it runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed.security import Security

_PREFIX = ".credentials-"

_ROLES = ("scheduler", "worker", "client")
_FILE = "tls_ca_file"


@contextmanager
def temporary_credentials(folder: Path) -> Iterator[Security]:
    """Make a key and a certificate, in files that only this user can read.

    Parameters
    ----------
    folder : Path
        All nodes see it.

    Yields
    ------
    distributed.security.Security
        For scheduler, workers and client; the files are removed at the end.
    """
    made = Security.temporary().get_tls_config_for_role("worker")
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as name:
        paths = {kind: _written(Path(name) / kind, made[kind]) for kind in ("key", "cert")}
        named = {f"tls_{role}_{kind}": path for role in _ROLES for kind, path in paths.items()}
        authority = _written(Path(name) / "ca", made["ca_file"])
        yield Security(require_encryption=True, **{_FILE: authority}, **named)


def remove_left(folder: Path) -> None:
    """Remove what drivers that were killed have left; none may run that writes there.

    Parameters
    ----------
    folder : Path
    """
    for left in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _written(path: Path, content: str) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    return str(path)
