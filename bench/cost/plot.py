"""The benchmark's plot: what a repaint step's time is spent on, as a multiple of a plain step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cost.stopwatch import PARTS
from bench.figures import new_figure

ROW_HEIGHT_IN = 0.4
SIZE_IN = (8.0, 1.4)  # width, and height without rows
DPI = 150
COLOURS = dict(zip(PARTS, ('#8c6bb1', '#b3401f', '#e6a15c', '#7f9fbf', '#4d7a4d', '#c9b458', '#bbbbbb'), strict=True))


def draw_shares(cases: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot: a bar a case, as long as its ratio, cut by the shares of the parts.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    figure = new_figure(path, SIZE_IN[0], SIZE_IN[1] + ROW_HEIGHT_IN * len(cases))
    panel = figure.subplots()
    left = [0.0] * len(cases)
    for part in PARTS:
        widths = [case['ratio'] * case['shares'][part] for case in cases]
        panel.barh(range(len(cases)), widths, left=left, color=COLOURS[part], label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    panel.axvline(1, color='black', linewidth=1, linestyle='--')
    names = [f'{c["model"]}, {c["img_size_px"]} px, batch {c["batch_size"]}, {c["variant"]}' for c in cases]
    panel.set_yticks(range(len(cases)), names, fontsize=8)
    panel.set_ylim(len(cases) - 0.5, -0.5)  # the first on top
    panel.set_xlabel('time of a repaint step, plain step = 1', fontsize=9)
    panel.legend(ncols=len(PARTS), fontsize=8, loc='lower center', bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=DPI)
