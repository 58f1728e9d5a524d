"""Compiling networks by torch.compile, where the machine can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isosr_models.execution import Execution


def compile_network(network: nn.Module, crops: Tensor, execution: Execution) -> str | None:
    """Compile a network in place, and try it; undone where that fails.

    Parameters
    ----------
    network : torch.nn.Module
        Its weights, gradients and statistics are as before afterwards.
    crops : Tensor, (n, 1, z, y, x) float32
        Of the shape that it will be given.
    execution : Execution
        Whose precision it is compiled for.

    Returns
    -------
    str or None
        Why it is not compiled; None: it is.
    """
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.compile()
    try:
        with execution.autocast():
            restored = network(crops)
        execution.backward(restored.float().mean())
    except Exception as error:  # noqa: BLE001 - compilers fail in ways of their own
        network._compiled_call_impl = None
        # What was left half done would be found again.
        torch.compiler.reset()
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    finally:
        network.zero_grad(set_to_none=True)
        for name, buffer in network.named_buffers():
            buffer.copy_(statistics[name])
    return None
