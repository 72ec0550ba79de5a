"""The bench's plot: paired differences in top-1, a dot a seed, with their means and 95 % intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.evidence.results import Result
from bench.evidence.table import Comparison, compare
from bench.figures import new_figure

WIDTH_IN = 9.0
ROW_HEIGHT_IN = 0.24
PANEL_MARGIN_IN = 0.5  # a panel's title, and the space below it
DPI = 110
DOT_COLOUR, MEAN_COLOUR, ZERO_COLOUR = '#7f9fbf', '#b3401f', '#888888'


def draw_plot(results: Sequence[Result], path: Path) -> bool:
    """Write the plot, a panel for each set of images; False if there is no pair of runs to compare.

    All panels have one axis, as wide as the seeds' differences: the interval of two or three seeds can end beyond it.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    comparisons = [c for c in compare(results) if c.column == 'top1']
    if not comparisons:
        return False
    keys = dict.fromkeys((c.data, c.size) for c in comparisons)
    sets = [[c for c in comparisons if (c.data, c.size) == key] for key in keys]
    heights = [ROW_HEIGHT_IN * len(rows) + PANEL_MARGIN_IN for rows in sets]
    figure = new_figure(path, WIDTH_IN, sum(heights) + PANEL_MARGIN_IN)
    panels = figure.subplots(len(sets), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for panel, rows in zip(panels, sets, strict=True):
        _draw_panel(panel, rows)
    panels[0].set_xlim(*_range_of_seeds(comparisons))
    panels[-1].set_xlabel('difference in top-1, percentage points; a dot a seed, mean and 95 % interval', fontsize=9)
    figure.savefig(path, dpi=DPI)
    return True


def _range_of_seeds(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """The axis: all seeds' differences and zero, with a margin."""
    values = [0.0, *(value for c in comparisons for value in c.difference.values.values())]
    margin = 0.08 * (max(values) - min(values)) + 0.5
    return min(values) - margin, max(values) + margin


def _draw_panel(panel: Any, rows: Sequence[Comparison]) -> None:
    """A set of images, a row for each comparison."""
    for row, comparison in enumerate(rows):
        _draw_row(panel, comparison, row)
    panel.axvline(0, color=ZERO_COLOUR, linewidth=1, zorder=0)
    panel.set_title(f'{rows[0].data}, {rows[0].size:,} images', fontsize=10, loc='left')
    panel.grid(axis='x', alpha=0.3)
    panel.tick_params(axis='x', labelbottom=True, labelsize=8)
    panel.set_yticks(range(len(rows)), [f'{c.arm} - {c.baseline}' for c in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.5, -0.5)  # the first on top


def _draw_row(panel: Any, comparison: Comparison, row: int) -> None:
    """The dots of the seeds, their mean and its interval at height `row`."""
    difference = comparison.difference
    values = list(difference.values.values())
    panel.plot(values, [row + 0.18] * len(values), 'o', color=DOT_COLOUR, markersize=3.5, alpha=0.8)
    panel.errorbar(
        difference.mean, row - 0.1, xerr=difference.half_width, fmt='D', color=MEAN_COLOUR, markersize=4, capsize=2.5
    )
