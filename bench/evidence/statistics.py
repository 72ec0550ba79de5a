"""Means, spread and paired differences over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

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


def standard_deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation (divisor n - 1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """First minus second over the seeds that both have.

    Both runs of a seed share their images and first weights, so what a seed does to both falls out.

    Args:
        first, second: value by seed.

    Returns:
        The difference; None without a common seed.
    """
    values = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    if not values:
        return None
    half_width = None
    if len(values) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        half_width = float(quantile * stats.sem(list(values.values())))
    return Difference(values, statistics.fmean(values.values()), half_width)
