"""In which precision the steps of a training run, and how many processes share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isosr_models.errors import DivergedError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Execution:
    """What an objective needs of Lightning Fabric; without it, one process in float32.

    Networks are not wrapped in DistributedDataParallel: generators and critics take turns, critics
    serve two losses of which one must not reach their gradients, and each step uses one forward
    pass for two backward ones, all of which a wrapper has to be talked out of. Instead, the
    gradients that an optimiser is about to use are averaged. As losses are means over crops, that
    is exactly the gradient of all processes' crops together.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric, optional
        Launched.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        self._fabric = fabric

    @property
    def is_shared(self) -> bool:
        """Whether there are several processes."""
        return self._fabric is not None and self._fabric.world_size > 1

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context for forward passes, in which they have the chosen precision."""
        return nullcontext() if self._fabric is None else self._fabric.autocast()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss."""
        if self._fabric is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._fabric.backward(loss)

    def update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """Take a step of an optimiser along the gradient of a loss; all processes must call it.

        Parameters
        ----------
        optimiser : torch.optim.Optimizer
        loss : Tensor, ()

        Raises
        ------
        DivergedError
            When the loss is not finite in any process; nothing is changed.
        """
        # Of all processes, so that all of them stop or none.
        if not torch.isfinite(mean := self.mean(loss)):
            raise DivergedError(
                f"the loss is {mean.item()}, and must be finite: training has diverged; "
                "a smaller learning rate or another seed may help"
            )
        optimiser.zero_grad(set_to_none=True)
        self.backward(loss)
        self.average_gradients(optimiser)
        optimiser.step()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes, detached; all must call it."""
        if self._fabric is None or not self.is_shared:
            return value.detach()
        mean = self._fabric.all_reduce(value.detach().clone(), reduce_op="mean")
        assert isinstance(mean, Tensor)  # noqa: S101 - a tensor in, a tensor out
        return mean

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over processes; all must call it with as many."""
        if not self.is_shared:
            return
        if not (found := list(tensors)):
            return
        # As one, since each exchange has a price.
        means = self.mean(torch.cat([tensor.flatten() for tensor in found]))
        for tensor, mean in zip(found, torch.split(means, [t.numel() for t in found]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, optimiser: torch.optim.Optimizer) -> None:
        """Average the gradients that an optimiser is about to use."""
        self.average(_gradients(optimiser))

    def average_statistics(self, modules: Iterable[torch.nn.Module]) -> None:
        """Average the running statistics of networks.

        Each process follows those of its own crops. They are linear in what is followed, so that
        their average is what one process with all crops would have.
        """
        buffers = (buffer for module in modules for buffer in module.buffers())
        self.average(buffer for buffer in buffers if buffer.is_floating_point())


def _gradients(optimiser: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter.grad
