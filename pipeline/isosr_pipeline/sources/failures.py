"""What it means that a file can't be read: damage, absence, permission, or a passing trouble."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from isosr_pipeline.errors import InputError, IsosrError, MissingInputError
from isosr_pipeline.store.tensorstores import error_number

_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.EREMOTEIO,
    errno.ESHUTDOWN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""Errors of file systems, networks and full tables that may be gone at the next attempt."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def raise_unless_damage(error: Exception, where: str | Path) -> None:
    """Raise what reading failed of, and return only if the file itself may be at fault.

    Parameters
    ----------
    error : Exception
        What a library raised.
    where : str or Path
        What was read; messages name it.

    Raises
    ------
    MissingInputError
        When the file is not there.
    InputError
        When it may not be read.
    OSError
        When the trouble may pass; such an error is worth another attempt.
    IsosrError
        The error itself, if it is one.
    """
    if isinstance(error, IsosrError):
        raise error
    number = error_number(error)
    if number in _PASSING:
        if isinstance(error, OSError) and error.errno is not None:
            raise error
        raise OSError(number, os.strerror(number), str(where)) from error
    if number in _ABSENT or number in _FORBIDDEN:
        raise unreadable(OSError(number, os.strerror(number)), where) from error


def unreadable(error: OSError, where: str | Path) -> InputError:
    """Return what stops a step: why a file can't be read, and what to do about it."""
    if error.errno in _ABSENT:
        return MissingInputError(f"{where} is not there ({error}); bring it back, then try again")
    if error.errno in _FORBIDDEN:
        return InputError(
            f"{where} may not be read ({error}); give yourself the right to read it (chmod u+r, "
            "and u+x for folders), or ask its owner"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return InputError(
            f"{where} can't be read, as too many files are open ({error}); raise the limit with "
            "ulimit -n, then try again"
        )
    return InputError(
        f"{where} can't be read now ({error}); see that its disk or server can be reached, then "
        "try again"
    )
