"""The paper's figures and ours, side by side, with gains by the paper's rule."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from timm_repaint.report.tables_paper import Entry
from timm_repaint.report.tables_runs import TableRun


class Gain(NamedTuple):
    """Percentage points over the baseline: of the means, and at least and at most."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A figure of the paper and ours.

    Attributes:
        entry: The paper's.
        values: Ours by seed, %.
        gain: Over our baseline; None for the baseline, where runs of either are missing altogether, and where one of
            them is a smaller trial and the other is not.
        trial: Whether our runs are smaller trials.
    """

    entry: Entry
    values: dict[int, float]
    gain: Gain | None
    trial: bool

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None


def compare(runs: Sequence[TableRun], entries: Sequence[Entry]) -> list[Row]:
    """A row for each of the paper's figures."""

    def by_seed(recipe: str, metric: str) -> dict[int, float]:
        return {run.seed: run.metrics[metric] for run in runs if run.recipe == recipe}

    trials = {run.recipe for run in runs if run.scaled}
    rows = []
    for entry in entries:
        ours, baseline = by_seed(entry.recipe, entry.metric), by_seed(entry.baseline, entry.metric)
        trial, comparable = entry.recipe in trials, (entry.recipe in trials) == (entry.baseline in trials)
        gain = None
        if entry.recipe != entry.baseline and comparable:
            gain = find_gain(list(ours.values()), list(baseline.values()))
        rows.append(Row(entry, ours, gain, trial))
    return rows


def find_gain(ours: Sequence[float], baseline: Sequence[float]) -> Gain | None:
    """The gain by the paper's rule: at least our worst run against the best baseline, at most the reverse.

    Returns:
        None if there are no runs of either.
    """
    if not ours or not baseline:
        return None
    mean = statistics.fmean(ours) - statistics.fmean(baseline)
    return Gain(mean, min(ours) - max(baseline), max(ours) - min(baseline))
