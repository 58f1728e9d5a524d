"""Watching a training: losses that stand still or blow up, and a restorer that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from isosr_models.errors import CollapsedError
from isosr_models.objective import Contrast

FLAT_STEPS = 200
"""Steps in a row with nearly the same loss that are a collapse."""

FLAT = 1e-4
"""Spread of a loss over these steps, in its own size, below which it is nearly the same."""

OUTSIDE_STEPS = 50
"""Steps in a row with a loss far outside its range that are a collapse."""

OUTSIDE = 100.0
"""How many times its median a loss is when it is far outside its range."""

ASTRAY_STEPS = 200
"""Steps in a row with a restorer that does nothing sensible that are a collapse."""

CONSTANT = 0.01
"""Share of the input's standard deviation below which an output counts as constant."""

SPREAD = 100.0
"""How many times the input's standard deviation is too much for an output, if it is above 1."""

IDLE = 1e-5
"""Share of it below which the difference between output and input counts as constant."""

_BUSY = 1e-3
"""Share of it that a restorer's difference must once have had to be called idle later."""
_LOOK_EVERY = 10
_EMPTY = 1e-4
_LEAST_LEVEL = 0.01
"""What the median of a loss counts as at the least: the cycle's is next to nothing at first."""
_SUSPICIOUS = 10
"""Steps without change after which a checkpoint is no longer called good."""


@dataclass
class Watch:
    """Looks at every step, and says when training has come to nothing.

    Crops differ from step to step, so that a loss which does not is one of a saturated network.
    Its fields are its state, which a checkpoint takes along: what was suspicious before an
    interruption still is after it.

    Attributes
    ----------
    steps : int
        Seen so far.
    recent : dict of str to list of float
        The last values of each loss, without those far outside its range.
    outside : dict of str to int
        Steps in a row for which each loss has been there.
    astray : int
        Steps for which the restorer has done nothing sensible.
    busy : bool
        Whether the restorer has ever changed more than the level of its input.
    """

    steps: int = 0
    recent: dict[str, list[float]] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    astray: int = 0
    busy: bool = False

    @property
    def is_calm(self) -> bool:
        """Whether nothing points to a collapse."""
        stands = any(_is_flat(values, _SUSPICIOUS) for values in self.recent.values())
        return not (stands or self.astray or any(self.outside.values()))

    def see(self, losses: dict[str, float], contrast: Callable[[], Contrast]) -> None:
        """Take note of a step.

        Parameters
        ----------
        losses : dict of str to float
            By name.
        contrast : callable
            Returns the contrast of the last crops, before and after; called every few steps.

        Raises
        ------
        CollapsedError
            Saying what was seen and the rule.
        """
        self.steps += 1
        for name, value in losses.items():
            self._see_loss(name, value)
        if self.steps % _LOOK_EVERY == 0:
            self._see_contrast(contrast())

    def conclude(self) -> None:
        """Say whether training has ended well.

        Raises
        ------
        CollapsedError
            When a loss is far outside its range at the end, and not by chance.
        """
        for name, steps in self.outside.items():
            if steps >= _SUSPICIOUS:
                raise CollapsedError(self._blown_up(name, steps))

    def _see_loss(self, name: str, value: float) -> None:
        recent = self.recent.setdefault(name, [])
        if recent and value > OUTSIDE * self._level(name):
            self.outside[name] = self.outside.get(name, 0) + 1
            if self.outside[name] >= OUTSIDE_STEPS:
                raise CollapsedError(f"{self._blown_up(name, OUTSIDE_STEPS)}, now {value:.3g}")
            return
        self.outside[name] = 0
        recent.append(value)
        del recent[:-FLAT_STEPS]
        if _is_flat(recent, FLAT_STEPS):
            raise CollapsedError(
                f"training has collapsed: the loss {name!r} has been {value:.6g} for {FLAT_STEPS} "
                f"steps, and no loss may stay within {FLAT:g} of itself for so long"
            )

    def _level(self, name: str) -> float:
        return max(_LEAST_LEVEL, median(self.recent[name]))

    def _blown_up(self, name: str, steps: int) -> str:
        return (
            f"training has blown up: for {steps} steps the loss {name!r} has been more than "
            f"{OUTSIDE:g} times its median of {self._level(name):.3g}"
        )

    def _see_contrast(self, contrast: Contrast) -> None:
        given, restored, added = contrast
        if given < _EMPTY:
            return
        self.busy |= added >= _BUSY * given
        if (wrong := self._wrong(contrast)) is None:
            self.astray = 0
            return
        self.astray += _LOOK_EVERY
        if self.astray >= ASTRAY_STEPS:
            raise CollapsedError(
                f"training has collapsed: for {ASTRAY_STEPS} steps {wrong}; the input has a "
                f"standard deviation of {given:.3g}, the output {restored:.3g}, and their "
                f"difference {added:.3g}"
            )

    def _wrong(self, contrast: Contrast) -> str | None:
        """Return what is wrong with what a restorer gives, if anything is."""
        given, restored, added = contrast
        if restored < CONSTANT * given:
            return f"the restored crops have less than {CONSTANT:g} of the contrast of the input"
        # A dim crop may well be overestimated while a network is still random.
        if restored > max(1.0, SPREAD * given):
            return f"the restored crops have more than {SPREAD:g} times the contrast of the input"
        # What adds to its input begins with nothing; it has died if that is where it ends.
        if self.busy and added < IDLE * given:
            return "the network has added nothing but a constant to the crops"
        return None


def _is_flat(values: list[float], steps: int) -> bool:
    """Return whether a loss has stayed where it is for so many steps."""
    last = values[-steps:]
    return len(last) == steps and max(last) - min(last) <= FLAT * max(map(abs, last))
