"""Whether an error means that memory ran out, which torch tells in several ways."""

from __future__ import annotations

import torch

_SAID = (
    "can't allocate memory: you tried to allocate",
    "not enough memory: you tried to allocate",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""In RuntimeErrors of torch's allocator for processors, on Linux and elsewhere, and of CUDA's
libraries, which have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, of the processor or of a GPU.

    Parameters
    ----------
    error : BaseException
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
