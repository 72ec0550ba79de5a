"""The runs that a page shows: their rows, galleries, alarms and cost, in groups that differ in the seed alone."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from timm_repaint.config import RepaintConfig
from timm_repaint.detection.options import build_parser as build_detection_parser
from timm_repaint.errors import UsageError, one_line
from timm_repaint.monitor.alarms import find_alarms
from timm_repaint.monitor.probe import Leak
from timm_repaint.options.parser import build_parser
from timm_repaint.options.roles import Role
from timm_repaint.options.run_file import FINE_TUNE, is_detection, read_args
from timm_repaint.painters import PAINTERS
from timm_repaint.report.summary import read_rows
from timm_repaint.report.tables_runs import SEED_ENDING, find_runs

NEUTRAL = Role.MACHINE.names | Role.OUTPUT.names  # the seed is among them
GALLERY = re.compile(r'gallery-([0-9]{1,9})\.png')
CHECKPOINT = re.compile(r'checkpoint-([0-9]{1,9})\.pth\.tar')
GAP = '…'


@dataclass(frozen=True)
class ShownRun:
    """A run as the page shows it.

    Attributes:
        folder: Its own.
        options: Of its `args.yaml`.
        rows: Of its `summary.csv`, those of the fine-tune phase behind.
        fine_tune_from: The first epoch of the fine-tune phase; None without.
        remarks: What could not be read.
    """

    folder: Path
    options: dict[str, Any]
    rows: list[dict[str, float]]
    fine_tune_from: int | None
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        return one_line(self.folder.name)

    @property
    def seed(self) -> str:
        return one_line(str(self.options.get('seed')))

    def points(self, column: str) -> dict[int, float]:
        """The finite values of a column, by epoch."""
        values = {int(row['epoch']): row.get(column, math.nan) for row in self.rows}
        return {epoch: value for epoch, value in values.items() if math.isfinite(value)}

    @property
    def spans(self) -> tuple[int, int]:
        """Epochs that the first phase and the fine-tune phase have done; with `--val-interval` not each has a row."""
        if not self.rows:
            return 0, 0
        end, start = int(self.rows[-1]['epoch']) + 1, self.fine_tune_from
        interval = self.options.get('val_interval')
        begin = max(0, int(self.rows[0]['epoch']) + 1 - (interval if isinstance(interval, int) else 1))
        return (end - begin, 0) if start is None else (start - begin, end - start)

    def galleries(self) -> dict[int, Path]:
        """Paths of its galleries, by epoch."""
        found = {int(match[1]): path for path in self.folder.iterdir() if (match := GALLERY.fullmatch(path.name))}
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone, and the name that they share."""

    name: str
    runs: list[ShownRun]

    def mean(self, column: str) -> dict[int, tuple[float, float, float]]:
        """Mean, lowest and highest value of a column in the epochs that all runs which have it have reached."""
        each = [points for run in self.runs if (points := run.points(column))]
        common = set.intersection(*map(set, each)) if each else set()
        at = {epoch: [points[epoch] for points in each] for epoch in sorted(common)}
        return {epoch: (math.fsum(values) / len(values), min(values), max(values)) for epoch, values in at.items()}


def read_groups(folders: Sequence[Path]) -> list[Group]:
    """The runs in and below the folders, group by group in their order.

    Raises:
        UsageError: if a folder holds none, or the options of one cannot be read.
    """
    groups: dict[str, list[ShownRun]] = {}
    times: Counter[str] = Counter()
    for folder in find_runs([folder.parent if folder.name == FINE_TUNE else folder for folder in folders]):
        run = read_shown_run(folder)
        options = {name: repr(value) for name, value in run.options.items() if name not in NEUTRAL}
        if run.options.get('resume') == 'auto':  # a run that went on from itself
            options['resume'] = repr('')
        own = repr(sorted(options.items()))
        times[own + repr(run.seed)] += 1  # the same run once more is a group of its own
        groups.setdefault(f'{times[own + repr(run.seed)]} {own}', []).append(run)
    names: Counter[str] = Counter()
    found = []
    for runs in groups.values():
        name = SEED_ENDING.sub('', runs[0].name) if len(runs) > 1 else runs[0].name
        names[name] += 1
        found.append(Group(f'{name} ({names[name]})' if names[name] > 1 else name, runs))
    return found


def read_shown_run(folder: Path) -> ShownRun:
    """A run with both of its phases.

    Raises:
        UsageError: if its options cannot be read.
    """
    rows, remark = read_rows(folder)
    later, later_remark = read_rows(folder / FINE_TUNE)
    start = int(later[0]['epoch']) if later else None
    first = [row for row in rows if start is None or row['epoch'] < start]
    if start is not None and first:  # a phase's last epoch has a row, its first one need not
        start = int(first[-1]['epoch']) + 1
    remarks = tuple(one_line(text) for text in (remark, later_remark) if text)
    return ShownRun(folder, read_args(folder), first + later, start, remarks)


def changed_options(groups: Sequence[Group]) -> list[tuple[str, str, list[str]]]:
    """Options that differ from the default in a run: flag, default, and the values of each group."""
    rows: dict[str, tuple[Any, list[str]]] = {}
    for run in (run for group in groups for run in group.runs):
        parser = build_detection_parser() if is_detection(run.options) else build_parser()
        defaults = vars(parser.parse_args([]))
        rows |= {
            name: (defaults[name], [_values(group, name) for group in groups])
            for name, value in run.options.items()
            if name in defaults and name not in rows and value != defaults[name]
        }
    return [('--' + name.replace('_', '-'), str(value), values) for name, (value, values) in sorted(rows.items())]


def _values(group: Group, name: str) -> str:
    return ', '.join(dict.fromkeys(one_line(str(run.options.get(name, GAP))) for run in group.runs))


def raised_alarms(run: ShownRun) -> list[tuple[str, str]]:
    """The warnings that training gave, as 'epochs 3 to 7' and the text; and how many updates were skipped."""
    begun: dict[str, tuple[int, str]] = {}
    ended: list[tuple[int, int, str]] = []
    for row in run.rows:
        epoch = int(row['epoch'])
        for name, text in _find_alarms(run.options, row).items():
            if text:
                begun.setdefault(name, (epoch, text))
            elif name in begun:
                first, said = begun.pop(name)
                ended.append((first, epoch - 1, said))
    ended += [(first, int(run.rows[-1]['epoch']), said) for first, said in begun.values()]
    found = [(f'epoch {a}' if a == b else f'epochs {a} to {b}', text) for a, b, text in sorted(ended)]
    skipped = run.points('train_skipped_updates')
    if skipped and (count := skipped[max(skipped)]):
        found.append(('in all', f'{count:.0f} updates of E, G and D were skipped: a loss or gradient was not finite'))
    return found


def _find_alarms(options: dict[str, Any], row: dict[str, float]) -> dict[str, str]:
    if not options.get('repaint') or options.get('repaint_generator') in PAINTERS or 'train_d_loss' not in row:
        return {}
    names = ('gan_loss', 'task_weight', 'feat_weight', 'kl_weight', 'segment_kl_weight', 'prob')
    given = {name: options[f'repaint_{name}'] for name in names if f'repaint_{name}' in options}
    try:
        settings = RepaintConfig((0.0,) * 3, (1.0,) * 3, **given)
    except (UsageError, TypeError):
        return {}
    by_latents = options.get('repaint_temperature') != 0 and options.get('repaint_detail') != 'swap'
    diversity = row.get('train_diversity', math.nan) if by_latents else math.nan
    leak = Leak(*(row.get(f'train_leak_{name}', math.nan) for name in Leak._fields))
    return find_alarms(row['train_d_loss'], diversity, leak, settings)


def run_seconds(run: ShownRun) -> tuple[float | None, float | None]:
    """Seconds an epoch of the first phase, and of all epochs; by the times of the checkpoints, None where unknown."""
    first, (before, behind) = epoch_seconds(run.folder), run.spans
    if first is None or not behind:
        return first, first and first * before
    second = epoch_seconds(run.folder / FINE_TUNE)
    return first, second and first * before + second * behind


def epoch_seconds(folder: Path) -> float | None:
    """The median time between the checkpoints of two epochs; None with less than two."""
    times = sorted(_checkpoint_times(folder))
    if len(times) < 2:
        return None
    return median((later - at) / (epoch - before) for (before, at), (epoch, later) in pairwise(times))


def _checkpoint_times(folder: Path) -> Iterator[tuple[int, float]]:
    for path in folder.glob('checkpoint-*.pth.tar'):
        if match := CHECKPOINT.fullmatch(path.name):
            yield int(match[1]), path.stat().st_mtime
