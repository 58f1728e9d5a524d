"""Watching a training: losses that stand still, and a restorer that gives nothing back."""

from __future__ import annotations

from collections.abc import Callable

from isosr_models.errors import CollapsedError

FLAT_STEPS = 200
"""Steps in a row with the same loss that are a collapse."""

FLAT = 1e-6
"""Largest change of a loss, in its own size, that counts as none."""

CONSTANT_STEPS = 200
"""Steps in a row with a constant output that are a collapse."""

CONSTANT = 0.01
"""Share of the input's standard deviation below which an output counts as constant."""

_LOOK_EVERY = 10
_EMPTY = 1e-4
_SUSPICIOUS = 10
"""Steps without change after which a checkpoint is no longer called good."""


class Watch:
    """Looks at every step, and says when training has come to nothing.

    Crops differ from step to step, so that a loss which does not is one of a saturated network.
    """

    def __init__(self) -> None:
        self._levels: dict[str, float] = {}
        self._flat: dict[str, int] = {}
        self._steps = self._constant = 0

    @property
    def is_calm(self) -> bool:
        """Whether nothing points to a collapse."""
        return not self._constant and all(n < _SUSPICIOUS for n in self._flat.values())

    def see(self, losses: dict[str, float], contrast: Callable[[], tuple[float, float]]) -> None:
        """Take note of a step.

        Parameters
        ----------
        losses : dict of str to float
            By name.
        contrast : callable
            Returns the standard deviations of the last crops, and of what they were restored to;
            called every few steps.

        Raises
        ------
        CollapsedError
            Saying what was seen and the rule.
        """
        self._steps += 1
        for name, value in losses.items():
            self._see_loss(name, value)
        if self._steps % _LOOK_EVERY == 0:
            self._see_contrast(*contrast())

    def _see_loss(self, name: str, value: float) -> None:
        level = self._levels.get(name)
        if level is None or abs(value - level) > FLAT * max(1.0, abs(level)):
            self._levels[name], self._flat[name] = value, 0
            return
        self._flat[name] = self._flat.get(name, 0) + 1
        if self._flat[name] >= FLAT_STEPS:
            raise CollapsedError(
                f"training has collapsed: the loss {name!r} has been {level:.6g} for {FLAT_STEPS} "
                f"steps, and no loss may stay within {FLAT:g} of itself for so long"
            )

    def _see_contrast(self, given: float, restored: float) -> None:
        if given < _EMPTY:
            return
        self._constant = self._constant + _LOOK_EVERY if restored < CONSTANT * given else 0
        if self._constant >= CONSTANT_STEPS:
            raise CollapsedError(
                f"training has collapsed: for {CONSTANT_STEPS} steps the restored crops have been "
                f"nearly constant, now with a standard deviation of {restored:.3g} for {given:.3g} "
                f"in the input, and it must be at least {CONSTANT:g} of that"
            )
