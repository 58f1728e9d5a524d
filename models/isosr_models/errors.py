"""Errors of the models: a base class of the project's, mixed with the builtin."""

from __future__ import annotations


class ModelError(Exception):
    """Base class of what can be wrong with a model."""


class ModelConfigError(ModelError, ValueError):
    """A parameter of a network or a method is outside what it can be."""


class ModelFormatError(ModelError, ValueError):
    """A model folder is missing, cut short, altered, or of another format version."""


class DivergedError(ModelError, ArithmeticError):
    """Training produced a loss that is not a finite number."""


class CollapsedError(DivergedError):
    """Training goes on with finite losses, and learns nothing any more."""
