"""Paired differences over seeds, and pandas for the tables of the benches."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

try:
    import pandas as pd
    from scipy import stats
except ImportError as missing:
    sys.exit(f"error: the benches need {missing.name}: pip install '.[bench]'")

CONFIDENCE = 0.95

__all__ = ['Difference', 'paired_difference', 'pd']


@dataclass(frozen=True)
class Difference:
    """A mean paired difference.

    Attributes:
        values: difference of each common seed.
        mean: their mean.
        half_width: half of its 95 % interval by Student's t; None with one seed.
    """

    values: dict[int, float]
    mean: float
    half_width: float | None


def paired_difference(first: Mapping[int, float] | Any, second: Mapping[int, float] | Any) -> Difference | None:
    """First minus second over the seeds that both have.

    Both runs of a seed share their images and first weights, so what a seed does to both falls out.

    Args:
        first, second: value by seed, a mapping or a series of pandas.

    Returns:
        The difference; None without a common seed.
    """
    values = (pd.Series(first, dtype=float) - pd.Series(second, dtype=float)).dropna().sort_index()
    if values.empty:
        return None
    half_width = None
    if len(values) > 1:
        half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.sem())
    return Difference(values.to_dict(), float(values.mean()), half_width)
