"""Means over seeds and paired differences, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95


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
    both = sorted(set(first.keys()) & set(second.keys()))
    values = {seed: float(first[seed] - second[seed]) for seed in both}
    values = {seed: value for seed, value in values.items() if not math.isnan(value)}
    if not values:
        return None
    return Difference(values, fmean(values.values()), half_width(list(values.values())))


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t; None with one value."""
    from scipy import stats  # late: it takes half a second

    if len(values) < 2:
        return None
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
