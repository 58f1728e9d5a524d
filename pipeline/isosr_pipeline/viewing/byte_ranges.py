"""Parts of files, as HTTP asks for them (RFC 9110, section 14)."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


class UnsatisfiableRange(ValueError):  # noqa: N818 - HTTP's own term
    """No byte of the file is in the range that was asked for."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes that a Range header asks for.

    Parameters
    ----------
    header : str or None
        Such as ``bytes=0-99`` or ``bytes=-100``.
    size : int
        Of the file, in bytes.

    Returns
    -------
    tuple of 2 ints or None
        Where the range begins and ends, the end excluded. None: the whole file is to be sent, as
        there is no header, or one of several ranges or of another form, which may be ignored.

    Raises
    ------
    UnsatisfiableRange
    """
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise UnsatisfiableRange(f"{header} of a file of {size} bytes")
    return start, stop
