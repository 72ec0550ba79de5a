"""The bench's plot: paired differences in top-1, a dot a seed, with their means and 95 % intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError
from timm_repaint.report.mini.results import Result
from timm_repaint.report.mini.table import Comparison, compare, group_results

PANEL_WIDTH_IN = 4.2
ROW_HEIGHT_IN = 0.34
MARGIN_IN = 1.3
DPI = 150
DOT_COLOUR, MEAN_COLOUR, ZERO_COLOUR = '#7f9fbf', '#b3401f', '#888888'


def draw_plot(results: Sequence[Result], path: Path) -> bool:
    """Write the plot, a panel for each set of images; False if there is no pair of runs to compare.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"{path.name} needs matplotlib: pip install '.[report]'") from error
    comparisons = [c for c in compare(group_results(results)) if c.column == 'top1']
    sets = list(dict.fromkeys(c[:2] for c in comparisons))
    if not sets:
        return False
    pairs = list(dict.fromkeys((c.arm, c.baseline) for c in comparisons))
    size = (PANEL_WIDTH_IN * len(sets) + 1, ROW_HEIGHT_IN * len(pairs) + MARGIN_IN)
    figure = Figure(figsize=size, layout='constrained')
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for panel, (data, images) in zip(panels, sets, strict=True):
        for comparison in comparisons:
            if comparison[:2] == (data, images):
                _draw_row(panel, comparison, pairs.index((comparison.arm, comparison.baseline)))
        panel.axvline(0, color=ZERO_COLOUR, linewidth=1, zorder=0)
        panel.set_title(f'{data}, {images} images', fontsize=10)
        panel.set_xlabel('difference in top-1, percentage points', fontsize=9)
        panel.grid(axis='x', alpha=0.3)
    panels[0].set_yticks(range(len(pairs)), [f'{arm} - {baseline}' for arm, baseline in pairs], fontsize=9)
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)  # the first on top
    figure.savefig(path, dpi=DPI)
    return True


def _draw_row(panel: Any, comparison: Comparison, row: int) -> None:
    """The dots of the seeds, their mean and its interval at height `row`."""
    difference = comparison.difference
    values = list(difference.values.values())
    panel.plot(values, [row + 0.18] * len(values), 'o', color=DOT_COLOUR, markersize=4, alpha=0.8)
    panel.errorbar(
        difference.mean, row - 0.08, xerr=difference.half_width, fmt='D', color=MEAN_COLOUR, markersize=5, capsize=3
    )
