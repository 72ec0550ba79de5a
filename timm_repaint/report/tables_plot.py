"""The plot of the tables: gains over the baseline, the paper's and ours."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from timm_repaint.figure import new_figure
from timm_repaint.report.tables_rows import Row

WIDTH_IN, ROW_HEIGHT_IN, PANEL_HEIGHT_IN = 8.0, 0.28, 0.8
DPI = 150
PAPER_COLOUR, OUR_COLOUR, ZERO_COLOUR = '#7f9fbf', '#b3401f', '#888888'


def draw_plot(rows: Sequence[Row], path: Path) -> None:
    """Write the plot, a panel for each table; arms without runs have the paper's mark alone.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    arms = [row for row in rows if row.entry.recipe != row.entry.baseline]
    tables = {table: list(members) for table, members in groupby(arms, key=lambda row: row.entry.table)}
    heights = [len(members) * ROW_HEIGHT_IN + PANEL_HEIGHT_IN for members in tables.values()]
    figure = new_figure(path, WIDTH_IN, sum(heights))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    paper_baselines = {
        (row.entry.recipe, row.entry.metric): row.entry.value for row in rows if row.entry.value is not None
    }
    for panel, (table, members) in zip(panels, tables.items(), strict=True):
        for place, row in enumerate(members):
            _draw_row(panel, row, place, paper_baselines.get((row.entry.baseline, row.entry.metric)))
        panel.axvline(0, color=ZERO_COLOUR, linewidth=1, zorder=0)
        panel.set_title(f'Table {table}', fontsize=10)
        panel.set_yticks(range(len(members)), [row.entry.row for row in members], fontsize=8)
        panel.set_ylim(len(members) - 0.5, -0.5)  # the first on top
        panel.grid(axis='x', alpha=0.3)
    panels[-1].set_xlabel('gain over the baseline, percentage points (blue: paper, red: these runs)', fontsize=9)
    figure.savefig(path, dpi=DPI)


def _draw_row(panel: Any, row: Row, place: int, paper_baseline: float | None) -> None:
    """The paper's gain above the line of the row, ours below; whiskers from the lowest to the highest gain."""
    entry = row.entry
    paper_gain = entry.gain
    if paper_gain is None and entry.value is not None and paper_baseline is not None:
        paper_gain = entry.value - paper_baseline  # not printed, but the paper's values give it
    if paper_gain is not None:
        _draw_mark(panel, place - 0.15, (paper_gain, entry.low, entry.high), PAPER_COLOUR)
    if row.gain is not None:
        _draw_mark(panel, place + 0.15, row.gain, OUR_COLOUR)


def _draw_mark(panel: Any, height: float, gain: tuple[float, float | None, float | None], colour: str) -> None:
    mean, low, high = gain
    whiskers = None if low is None or high is None else [[max(0.0, mean - low)], [max(0.0, high - mean)]]
    panel.errorbar([mean], [height], xerr=whiskers, fmt='o', color=colour, markersize=4, capsize=2)
