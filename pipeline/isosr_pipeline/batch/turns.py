"""Turns: of the submissions that count brains in flight, one of a user at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isosr_pipeline.errors import OutputPathError
from isosr_pipeline.locking import passing_lock
from isosr_pipeline.paths import make_folder

_CACHE = "XDG_CACHE_HOME"
_BUSY = (
    "another submission with --max-brains runs now, and both would count the same brains in "
    "flight; wait for it, then submit again"
)


@contextmanager
def own_turn() -> Iterator[None]:
    """Keep other submissions of this user from counting brains in flight meanwhile.

    The lock is in the user's folder for caches, which the login nodes of a cluster share: brains
    may have outputs anywhere.

    Raises
    ------
    BusyError
        When another one runs.
    OutputPathError
        When that folder can't be written to, or its file system has no locks.
    """
    folder = Path(os.environ.get(_CACHE) or Path.home() / ".cache") / "isosr-pipeline"
    with ExitStack() as held:
        try:
            make_folder(folder)
            held.enter_context(passing_lock(folder / "submitting", folder, _BUSY))
        except OutputPathError as error:
            raise OutputPathError(
                f"{error}; the lock of --max-brains lies there: {_CACHE} can name another folder"
            ) from error
        yield
