"""Errors of the pipeline: each names what was found, the rule, and the remedy."""

from __future__ import annotations

from typing import Any


class IsosrError(Exception):
    """Base class of the errors that a user of the pipeline can act on."""

    def __reduce__(self) -> tuple[type[IsosrError], tuple[Any, ...]]:
        """Pickle by class and message: what is two kinds of error can't be pickled as either."""
        return type(self), self.args


class InputError(IsosrError, ValueError):
    """A source, store, parameter or file of the user's is not what the step needs."""


class MissingInputError(InputError, FileNotFoundError):
    """A path that a step reads from is not there."""


class OutputPathError(InputError, OSError):
    """The system refuses to create an output where it was asked for."""


class NoTrustMapError(InputError):
    """What is restored can't be compared with what was measured; it is whole all the same."""


class UnknownBlurError(NoTrustMapError):
    """Nothing is known of the blur that a model undoes, and none is given."""


class NoMeasuredPlaneError(NoTrustMapError):
    """What was restored lies between two measured planes."""


class OutputExistsError(IsosrError, FileExistsError):
    """An output is there already, and overwriting it was not asked for."""


class AlignmentError(IsosrError, ValueError):
    """A write would not cover whole shards, so that two writers could lose each other's data."""


class ResumeError(IsosrError, ValueError):
    """An unfinished output was made from another input, model or set of parameters."""


class BusyError(IsosrError, RuntimeError):
    """Another process is filling the same output."""


class WorkFailedError(IsosrError, RuntimeError):
    """Some part of the work could not be done; the message says what is kept."""


class HopelessError(WorkFailedError):
    """What failed in one region would fail in every other, so that none is tried any more."""


class InterruptedRunError(IsosrError, RuntimeError):
    """A step was asked to stop (Ctrl-C, a walltime signal) and can be resumed."""
