"""The plot of the tables: gains over the baseline, the paper's and ours."""

from pathlib import Path
from typing import Any

from timm_repaint.optional import new_figure

WIDTH_IN, ROW_HEIGHT_IN, PANEL_HEIGHT_IN = 8.0, 0.28, 0.8
DPI = 150
PAPER_COLOUR, OUR_COLOUR, ZERO_COLOUR = '#7f9fbf', '#b3401f', '#888888'


def draw_plot(rows: Any, path: Path) -> None:
    """Write the plot of `compare`'s rows, a panel for each table; arms without runs have the paper's mark alone.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    values = rows.dropna(subset='paper').drop_duplicates(['recipe', 'metric']).set_index(['recipe', 'metric'])['paper']
    arms = rows[rows['recipe'] != rows['baseline']].join(values.rename('paper_baseline'), on=['baseline', 'metric'])
    # Where it is not printed, the paper's values give it.
    arms['paper_gain'] = arms['paper_gain'].fillna(arms['paper'] - arms['paper_baseline'])
    tables = [(table, members) for table, members in arms.groupby('table')]
    heights = [len(members) * ROW_HEIGHT_IN + PANEL_HEIGHT_IN for _, members in tables]
    figure = new_figure(path, WIDTH_IN, sum(heights))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (table, members) in zip(panels, tables, strict=True):
        _draw_marks(panel, -0.15, members[['paper_gain', 'paper_min', 'paper_max']], PAPER_COLOUR)
        _draw_marks(panel, 0.15, members[['gain', 'min', 'max']], OUR_COLOUR)
        panel.axvline(0, color=ZERO_COLOUR, linewidth=1, zorder=0)
        panel.set_title(f'Table {table}', fontsize=10)
        panel.set_yticks(range(len(members)), members['row'], fontsize=8)
        panel.set_ylim(len(members) - 0.5, -0.5)  # the first on top
        panel.grid(axis='x', alpha=0.3)
    panels[-1].set_xlabel('gain over the baseline, percentage points (blue: paper, red: these runs)', fontsize=9)
    figure.savefig(path, dpi=DPI)


def _draw_marks(panel: Any, offset: float, gains: Any, colour: str) -> None:
    """A mark a row that has a gain, beside the row's line; whiskers from the lowest to the highest, where there are."""
    for place, (mean, low, high) in enumerate(gains.itertuples(index=False)):
        if mean == mean:
            whiskers = [[max(0.0, mean - low)], [max(0.0, high - mean)]] if low == low else None
            panel.errorbar([mean], [place + offset], whiskers and None, whiskers, 'o', color=colour, ms=4, capsize=2)
