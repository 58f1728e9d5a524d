"""Which GPUs this machine offers, by names that CUDA_VISIBLE_DEVICES understands."""

from __future__ import annotations

import os
import re
import subprocess

VISIBLE = "CUDA_VISIBLE_DEVICES"
_UUID = re.compile(r"\(UUID: (?P<uuid>\S+)\)")
_SECONDS_TO_ANSWER = 30.0


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use.

    Returns
    -------
    list of str
        What CUDA_VISIBLE_DEVICES holds (numbers, UUIDs or MIG ids); where it isn't set, the UUIDs
        of all GPUs and MIG slices that nvidia-smi names. Empty where there is none.
    """
    visible = os.environ.get(VISIBLE)
    return _listed() if visible is None else _visible(visible)


def _visible(value: str) -> list[str]:
    """Read CUDA_VISIBLE_DEVICES as CUDA does: what follows an invalid name isn't seen."""
    found: list[str] = []
    for name in value.split(","):
        device = name.strip()
        if not re.fullmatch(r"\d+|GPU-\S+|MIG-\S+", device):
            break
        found.append(device)
    return found


def _listed() -> list[str]:
    command = ["nvidia-smi", "-L"]  # found on the path, as its folder differs between systems
    try:
        told = subprocess.run(  # noqa: S603 - no part of it comes from outside
            command, capture_output=True, text=True, check=True, timeout=_SECONDS_TO_ANSWER
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_list(told.stdout)


def parse_list(text: str) -> list[str]:
    """Return the UUIDs in what ``nvidia-smi -L`` prints: of slices where a GPU is cut into some.

    Parameters
    ----------
    text : str
    """
    found: list[str] = []
    whole = False
    for line in text.splitlines():
        match = _UUID.search(line)
        if match is None:
            continue
        is_slice = line.lstrip().startswith("MIG")
        if is_slice and whole:
            found.pop()
        found.append(match["uuid"])
        whole = not is_slice
    return found
