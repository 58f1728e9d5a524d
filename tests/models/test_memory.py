from __future__ import annotations

import pytest
import torch

from isosr_models.memory import is_out_of_memory


def test_what_the_processors_allocator_says_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Sizes of tensors must match"), False),
        (OSError("can't allocate memory: you tried to allocate"), False),
    ],
)
def test_other_errors_are_told_apart(error, expected):
    assert is_out_of_memory(error) == expected
