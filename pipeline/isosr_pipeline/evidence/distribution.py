"""Many figures of one kind, summed up."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of all results: fixed; unknown keys are errors; infinite figures survive JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Distribution(Result):
    """A distribution of figures, in their unit.

    Attributes
    ----------
    count : int
        Finite ones, of which the rest is told.
    left_out : int
        Others.
    mean : float
    deviation : float or None
        Standard deviation of the sample; None: of one figure.
    minimum, lower_quartile, median, upper_quartile, maximum : float
    """

    count: int
    left_out: int
    mean: float
    deviation: float | None
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @classmethod
    def of(cls, figures: Iterable[float | None]) -> Distribution | None:
        """Sum up figures; None where none is finite."""
        given = list(figures)
        finite = [figure for figure in given if figure is not None and math.isfinite(figure)]
        if not finite:
            return None
        low, lower, middle, upper, high = np.percentile(finite, [0, 25, 50, 75, 100]).tolist()
        return cls(
            count=len(finite),
            left_out=len(given) - len(finite),
            mean=float(np.mean(finite)),
            deviation=float(np.std(finite, ddof=1)) if len(finite) > 1 else None,
            minimum=low,
            lower_quartile=lower,
            median=middle,
            upper_quartile=upper,
            maximum=high,
        )
