"""One HTML page of runs: figures, curves, galleries, alarms, cost and options, in a file that needs no other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from timm_repaint.engine.output import known_values
from timm_repaint.files import check_ours, write_text
from timm_repaint.report.page_curves import COLOURS, draw_panels, load_bokeh, script
from timm_repaint.report.page_pictures import draw_galleries
from timm_repaint.report.page_runs import Group, changed_options, raised_alarms, read_groups, run_seconds
from timm_repaint.report.seeds import half_width, paired_difference

PAGE = 'report.html'
MARK = 'timm_repaint</title>'  # the end of each page's title
METRICS = {'eval_top1': 'top-1, %', 'eval_map': 'mAP, %', 'train_loss': 'training loss'}
NONE = '-'


def write_page(folders: Sequence[Path], output: Path | None) -> Path:
    """Write the page of the runs in and below the folders; its path.

    Args:
        folders: Of runs.
        output: The file; None: report.html in the folder, or with several in the current one.

    Raises:
        UsageError: if bokeh is missing, a folder holds no run, or the file cannot be written or is somebody's.
    """
    path = output or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    check_ours(path, MARK, 'page')
    write_text(path, render_page(folders))
    return path


def render_page(folders: Sequence[Path], stamp: str = '') -> str:
    """The page's HTML.

    Args:
        folders: Of runs, or that hold some.
        stamp: What the server says until the page is out of date; '': a page that stays.

    Raises:
        UsageError: if bokeh is missing, or a folder holds no run.
    """
    load_bokeh()
    groups = read_groups(folders)
    galleries, remarks = draw_galleries(groups)
    panels = draw_panels(groups)
    metric, figures = summarise(groups)
    environment = Environment(
        loader=PackageLoader('timm_repaint.report', '.'),
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    environment.policies['json.dumps_kwargs'] = {'allow_nan': False}
    return environment.get_template('page.html.j2').render(
        bokeh_script=script(),
        groups=groups,
        colours=COLOURS,
        metric=metric,
        base=base_of(groups).name if len(groups) > 1 else '',
        seeds=any(len(group.runs) > 1 for group in groups),
        figures=figures,
        panels=panels,
        galleries=galleries,
        alarms=[(run.name, alarms) for group in groups for run in group.runs if (alarms := raised_alarms(run))],
        options=changed_options(groups),
        remarks=[remark for group in groups for run in group.runs for remark in run.remarks] + remarks,
        data=known_values({
            'charts': [panel['item'] for panel in panels],
            'galleries': [gallery['repaints'] for gallery in galleries],
            'stamp': stamp,
        }),
    )  # fmt: skip


def base_of(groups: Sequence[Group]) -> Group:
    """What others are compared with: the first group without repaints, else the first."""
    return next((group for group in groups if not group.runs[0].options.get('repaint')), groups[0])


def summarise(groups: Sequence[Group]) -> tuple[str, list[dict[str, str]]]:
    """What the last epoch is measured by, and a row of the table for each group.

    Differences are to `base_of`: means over the seeds that both have, each at the last epoch that both of its runs
    have.
    """
    column = next((name for name in METRICS if any(run.points(name) for group in groups for run in group.runs)), '')
    base = base_of(groups)
    base_epoch_s, _ = _seconds(base)
    rows = []
    for group in groups:
        curves = {run.seed: points for run in group.runs if (points := run.points(column))}
        difference = None if group is base else paired_difference(*_at_equal_epochs(curves, base, column))
        epoch_s, whole_s = _seconds(group)
        rows.append({
            'seeds': ', '.join(str(run.seed) for run in group.runs),
            'epochs': _epochs(group),
            'last': _interval('{:.2f}', [points[max(points)] for points in curves.values()]),
            'best': _best(group, column),
            'difference': _signed(difference.mean, difference.half_width) if difference else NONE,
            'pairs': f'{len(difference.values)} pairs' if difference and len(difference.values) > 1 else '',
            'epoch_s': NONE if epoch_s is None else f'{epoch_s:.1f} s',
            'times': '' if group is base or not (epoch_s and base_epoch_s) else f'{epoch_s / base_epoch_s:.2f} times',
            'whole': NONE if whole_s is None else f'{whole_s / 60:.1f} min',
        })  # fmt: skip
    return METRICS.get(column, ''), rows


def _at_equal_epochs(
    curves: dict[Any, dict[int, float]], base: Group, column: str
) -> tuple[dict[Any, float], dict[Any, float]]:
    """By seed: values of both at the last epoch that both have."""
    others = {run.seed: run.points(column) for run in base.runs}
    ends = {seed: max(points.keys() & others.get(seed, {}).keys(), default=None) for seed, points in curves.items()}
    at = {seed: epoch for seed, epoch in ends.items() if epoch is not None}
    return (
        {seed: curves[seed][epoch] for seed, epoch in at.items()},
        {seed: others[seed][epoch] for seed, epoch in at.items()},
    )


def _epochs(group: Group) -> str:
    done = {sum(run.spans) for run in group.runs}
    return f'{" to ".join(map(str, sorted({min(done), max(done)})))} of {group.runs[0].options.get("epochs", "?")}'


def _best(group: Group, column: str) -> str:
    """The best value of any epoch, mean over the runs; 'best' is less for a loss."""
    choose = min if column.endswith('loss') else max
    each = [choose(points.values()) for run in group.runs if (points := run.points(column))]
    return _interval('{:.2f}', each)


def _interval(form: str, values: Sequence[float]) -> str:
    """A mean with half of its interval behind."""
    if not values:
        return NONE
    half = half_width(values)
    return form.format(sum(values) / len(values)) + ('' if half is None else f' ± {form.format(half)}')


def _signed(mean: float, half: float | None) -> str:
    return f'{mean:+.2f}' if half is None else f'{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})'


def _seconds(group: Group) -> tuple[float | None, float | None]:
    """Means over the runs: seconds an epoch, and in all."""
    means: list[Any] = []
    for values in zip(*map(run_seconds, group.runs), strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means[0], means[1]
