"""The curves of a page, drawn by bokeh: a colour a group of runs, a dash a column, the seeds' range behind the mean."""

from collections.abc import Sequence
from typing import Any

from timm_repaint.optional import load_optional
from timm_repaint.report.page_runs import Group

COLOURS = ('#3b82c4', '#e06c3b', '#2f9e6e', '#b565a7', '#c99a1e', '#4fb3bf', '#8a8a8a', '#a0674b')
DASHES = ('solid', 'dashed', 'dotted')
HEIGHT_PX = 260
MOST_MARKS = 60  # epochs; beyond, a line has none

Spread = tuple[float, float, float]  # mean, lowest, highest
PANELS = {  # title: columns of summary.csv, and what they are called
    'Top-1, %': {'eval_top1': 'validation'},
    'mAP, %': {'eval_map': 'validation'},
    'Loss of T': {'train_loss': 'training', 'eval_loss': 'validation'},
    'Losses of D and G': {'train_d_loss': 'D', 'train_g_gan': 'G, adversarial'},
    'Diversity of repaints': {'train_diversity': 'two repaints of an image'},
    'Leak: T is right on, %': {
        'train_leak_original': 'validation images',
        'train_leak_repaint': 'their repaints',
        'train_leak_swapped': "repaints with others' latents",
    },
}


def load_bokeh(part: str = '') -> Any:
    """The plotting library, or a part of it.

    Raises:
        UsageError: if it is not installed.
    """
    return load_optional(f'bokeh{part}', 'the page', 'page')


def script() -> str:
    """The library's JavaScript, to be part of the page."""
    return '\n'.join(load_bokeh('.resources').Resources(mode='inline', components=['bokeh']).js_raw)


def draw_panels(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The panels for which a run has values: title, what each dash is, and the chart for `Bokeh.embed.embed_item`."""
    drawn = []
    for title, columns in PANELS.items():
        shown = {name: word for name, word in columns.items() if any(group.mean(name) for group in groups)}
        if shown:
            words = [f'{dash}: {word}' for dash, word in zip(DASHES, shown.values(), strict=False)]
            drawn.append({'title': title, 'words': ', '.join(words), 'item': _draw(shown, groups)})
    return drawn


def _draw(columns: dict[str, str], groups: Sequence[Group]) -> Any:
    models, plotting = load_bokeh('.models'), load_bokeh('.plotting')
    chart = plotting.figure(height=HEIGHT_PX, sizing_mode='stretch_width', toolbar_location=None, tools='')
    lines: dict[str, dict[int, Spread]] = {}
    seen = []
    for number, group in enumerate(groups):
        colour = COLOURS[number % len(COLOURS)]
        for dash, column in zip(DASHES, columns, strict=False):
            if points := group.mean(column):
                lines[group.name if len(columns) == 1 else f'{group.name}, {columns[column]}'] = points
                seen += _draw_line(chart, points, colour, dash)
        for start in {run.fine_tune_from for run in group.runs if run.fine_tune_from is not None}:
            line = models.Span(location=start - 0.5, dimension='height', line_color=colour, line_dash='dotted')
            chart.add_layout(line)
    chart.add_tools(_hover(chart, models, lines))
    chart.xaxis.axis_label = 'epoch'
    chart.xaxis.ticker.update(min_interval=1)
    chart.y_range.renderers = seen
    return load_bokeh('.embed').json_item(chart)


def _draw_line(chart: Any, points: dict[int, Spread], colour: str, dash: str) -> list[Any]:
    """The range of the seeds, a mark an epoch, and their mean as a line."""
    epochs, (means, lows, highs) = list(points), zip(*points.values(), strict=True)
    drawn = [chart.varea(epochs, lows, highs, fill_color=colour, fill_alpha=0.15)]
    if len(epochs) <= MOST_MARKS:
        chart.scatter(epochs, means, color=colour, size=5)
    return [*drawn, chart.line(epochs, means, line_color=colour, line_dash=dash, line_width=2)]


def _hover(chart: Any, models: Any, lines: dict[str, dict[int, Spread]]) -> Any:
    """One box for all lines at the epoch under the mouse, which an unseen line finds."""
    epochs = sorted({epoch for points in lines.values() for epoch in points})
    texts = {f'line{n}': [_text(points.get(epoch)) for epoch in epochs] for n, points in enumerate(lines.values())}
    places = [next(points[epoch][0] for points in lines.values() if epoch in points) for epoch in epochs]
    source = models.ColumnDataSource({'epoch': epochs, 'place': places, **texts})
    unseen = chart.line('epoch', 'place', source=source, line_alpha=0)
    labels = [('epoch', '@epoch'), *((name, f'@{column}') for name, column in zip(lines, texts, strict=True))]
    return models.HoverTool(
        renderers=[unseen], mode='vline', point_policy='follow_mouse', show_arrow=False, tooltips=labels
    )


def _text(spread: Spread | None) -> str:
    """'0.947', with several seeds '0.947 (0.9 to 1)', nothing where the epoch has no value."""
    if spread is None:
        return ''
    mean, low, high = (f'{value:.4g}' for value in spread)
    return mean if low == high else f'{mean} ({low} to {high})'
