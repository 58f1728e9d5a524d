"""In which precision restorers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["32", "bf16"]

_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""As Linux names what multiplies bfloat16 natively, on x86 and on ARM."""

_CPU_INFO = Path("/proc/cpuinfo")


def native_precision(device: torch.device) -> Precision:
    """Return "bf16" for devices that compute in bfloat16 natively, "32" for others.

    Parameters
    ----------
    device : torch.device
    """
    if device.type == "cuda":
        # Before compute capability 8, bfloat16 is emulated.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "32"
    return "bf16" if _CPU_FLAGS & _cpu_flags() else "32"


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, "").split())


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute convolutions on a device in a precision.

    Parameters
    ----------
    device : torch.device
    precision : {"32", "bf16"}
        "32" is float32 on GPUs too, whose libraries would take TF32, with its 10 bits, by default.
    """
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        torch.backends.cudnn.flags(allow_tf32=False),
    ):
        yield
