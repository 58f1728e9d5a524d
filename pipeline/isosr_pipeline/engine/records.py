"""The lines of a ledger: how they are written, and read without parsing what isn't asked for.

::

    {"format":2,"making":{…},"passes":{"restore":4096,"level 1":512}}
    {"opened":1763676000.1,"host":"node7","pid":4711}
    {"pass":"restore","region":12,"time":1763676031.4,"files":[…],"result":{…}}
    {"pass":"restore","region":13,"time":1763676032.0,"failed":"what was wrong"}

A region is done if its last line has a result. The first line binds the ledger to what is made; one
that tells who fills the store follows each time that it is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

FILE = ".isosr-ledger.jsonl"
FORMAT = 2

_LONGEST_MESSAGE = 2000
_HEAD = re.compile(
    rb'\{"pass":"((?:[^"\\]|\\.)*)","region":(\d+),"time":(\d+(?:\.\d+)?),"(files|failed)":'
)
_OPENED = b'{"opened":'
_RESULT = b',"result":'


class Head(NamedTuple):
    """What each line on a region begins with.

    Parameters
    ----------
    name : str
        Of the pass.
    region : int
    time : float
        Unix time in seconds at which the line was made.
    is_done : bool
        Whether the region is done; it has failed otherwise.
    end : int
        Where the rest of the line begins.
    """

    name: str
    region: int
    time: float
    is_done: bool
    end: int


def head_reader() -> Callable[[bytes], Head | None]:
    """Return what reads the head of a line, None where the line is no whole record of a region."""
    names: dict[bytes, str] = {}
    match = _HEAD.match

    def read(line: bytes) -> Head | None:
        found = match(line)
        if found is None or not is_whole(line):
            return None
        raw, region, time, kind = found.groups()
        name = names.get(raw)
        if name is None:
            name = names[raw] = json.loads(b'"%b"' % raw)
        return Head(name, int(region), float(time), kind == b"files", found.end())

    return read


def is_whole(line: bytes) -> bool:
    """Tell whether a line was not torn: a power cut leaves it short, or with zeros in it."""
    return line.endswith(b"}\n") and b"\0" not in line


def is_opening(line: bytes) -> bool:
    """Tell whether a whole line says who has opened the ledger."""
    return line.startswith(_OPENED) and is_whole(line)


def files_of(line: bytes, head: Head) -> bytes:
    """Return the JSON of the files of a region that is done."""
    return line[head.end : line.index(_RESULT, head.end)]


def result_of(line: bytes, head: Head) -> dict[str, Any]:
    """Return the result of a region that is done."""
    begin = line.index(_RESULT, head.end) + len(_RESULT)
    result: dict[str, Any] = json.loads(line[begin:-2])
    return result


def failure_of(line: bytes, head: Head) -> str:
    """Return what was wrong with a region that has failed."""
    return str(json.loads(line[head.end : -2]))


def parse(line: bytes) -> dict[str, Any] | None:
    """Return what a whole line holds, None for one that was torn."""
    if not is_whole(line):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def encode(entry: Mapping[str, Any]) -> bytes:
    """Return the line of an entry."""
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def encode_done(name: str, region: int, time: float, result: Mapping[str, Any]) -> bytes:
    """Return the line of a region that is done.

    Parameters
    ----------
    name : str
        Of the pass.
    region : int
    time : float
    result : mapping
        Its ``"files"``, if there are any, are what can be checked later.
    """
    rest = {key: value for key, value in result.items() if key != "files"}
    files = result.get("files", [])
    return encode(
        {"pass": name, "region": region, "time": round(time, 1), "files": files, "result": rest}
    )


def encode_failed(name: str, region: int, time: float, message: str) -> bytes:
    """Return the line of a region that has failed."""
    shown = message[:_LONGEST_MESSAGE]
    return encode({"pass": name, "region": region, "time": round(time, 1), "failed": shown})


def records(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Head]]:
    """Yield the lines on regions, with their heads, up to the first that is torn."""
    read = head_reader()
    for line in lines:
        head = read(line)
        if head is not None:
            yield line, head
        elif not is_opening(line):
            return
