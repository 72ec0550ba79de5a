"""The bench's table in Markdown: means over seeds, and paired differences with their intervals."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.evidence.arms import ARMS, CONTROLS, SAMPLES
from bench.evidence.results import Result
from bench.evidence.statistics import Difference, paired_difference, standard_deviation
from timm_repaint.markdown import markdown_table

NONE = '-'
# Columns of Result and of its measures: name -> heading. Those that no run has are left out.
MEANS = {
    'phase_top1': 'top-1 after phase 1',
    'train_loss': 'train loss',
    'validation_loss': 'validation loss',
    'diversity': 'diversity',
    'distance': 'distance',
    'changed_segments': 'changed segments',
    'leak_original': 'leak: original',
    'leak_repaint': 'leak: repaint',
    'leak_swapped': 'leak: swapped',
    'phase_shape': 'by shape after phase 1',
    'phase_texture': 'by texture after phase 1',
    'shape': 'by shape',
    'texture': 'by texture',
    'seconds': 'seconds a run',
}
THREE_DIGITS = ('train_loss', 'validation_loss', 'diversity', 'distance')
COMPARED = {'top1': 'top-1', 'phase_shape': MEANS['phase_shape'], 'shape': MEANS['shape']}


class Group(NamedTuple):
    """The runs of one arm on one set of images."""

    data: str
    size: int
    arm: str
    results: list[Result]

    @property
    def is_repaint_on_plain(self) -> bool:
        """Whether the arm has repaints and is compared with plain training."""
        first = self.results[0]
        return first.baseline == 'plain' and bool(first.options.get('repaint'))

    def by_seed(self, name: str) -> dict[int, float]:
        """A column by seed, of the runs that have it."""
        values = {result.seed: result.value(name) for result in self.results}
        return {seed: value for seed, value in values.items() if value is not None}


class Comparison(NamedTuple):
    """A paired difference of two arms on the same images."""

    data: str
    size: int
    arm: str
    baseline: str
    column: str
    difference: Difference


def group_results(results: Sequence[Result]) -> list[Group]:
    """Groups in the order of the results."""
    groups: dict[tuple[str, int, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.data, result.size, result.arm), []).append(result)
    return [Group(*key, members) for key, members in groups.items()]


def compare(groups: Sequence[Group]) -> Iterator[Comparison]:
    """Each arm against its baseline, then repaint arms against the controls; what has no common seed is left out."""
    by_arm = {group[:3]: group for group in groups}
    pairs = [(group, group.results[0].baseline) for group in groups]
    rivals = [group for group in groups if group.arm not in CONTROLS and group.is_repaint_on_plain]
    pairs += [(group, control) for control in CONTROLS for group in rivals]
    pairs += [(group, SAMPLES[group.arm]) for group in groups if group.arm in SAMPLES]
    for column in COMPARED:
        for group, baseline in pairs:
            other = by_arm.get((group.data, group.size, baseline))
            difference = paired_difference(group.by_seed(column), other.by_seed(column)) if other else None
            if difference is not None:
                yield Comparison(group.data, group.size, group.arm, baseline, column, difference)


def signed(value: float) -> str:
    return f'{value:+.2f}'


def interval(difference: Difference) -> str:
    """The 95 % interval as '+0.50 to +3.70'; '-' with one seed."""
    if difference.half_width is None:
        return NONE
    return f'{signed(difference.mean - difference.half_width)} to {signed(difference.mean + difference.half_width)}'


def make_table(results: Sequence[Result]) -> str:
    """The whole text of `table.md`."""
    groups = group_results(results)
    comparisons = list(compare(groups))
    names = [name for name in MEANS if any(group.by_seed(name) for group in groups)]
    head = ['data', 'images', 'arm', 'epochs', 'seeds', 'top-1, %', 'sd', 'difference', '95 % interval', 'baseline']
    rows = [_row(group, comparisons, names) for group in groups]
    parts = ['## Arms', markdown_table(head + [MEANS[name] for name in names], rows)]
    parts.append(
        'Top-1 is that of the last epoch. A difference is the mean over seeds of the difference between runs of one '
        "seed, its interval by Student's t. Epochs: first phase + second phase."
    )
    further = [c for c in comparisons if c.column != 'top1' or c.baseline in (*CONTROLS, *SAMPLES.values())]
    if further:
        parts += ['## Further differences', _further(further)]
    parts += ['## What the arms are', '\n'.join(dict.fromkeys(_about(group) for group in groups))]
    return '\n\n'.join(parts) + '\n'


def _row(group: Group, comparisons: Sequence[Comparison], names: Sequence[str]) -> list[str]:
    top1 = list(group.by_seed('top1').values())
    deviation = standard_deviation(top1)
    row = [group.data, str(group.size), group.arm, _epochs(group), str(len(top1)), f'{statistics.fmean(top1):.2f}']
    row.append(NONE if deviation is None else f'{deviation:.2f}')
    baseline = group.results[0].baseline
    wanted = (group.data, group.size, group.arm, baseline, 'top1')
    difference = next((c.difference for c in comparisons if c[:5] == wanted), None)
    row += [NONE] * 3 if difference is None else [signed(difference.mean), interval(difference), baseline]
    return row + [_mean(group, name) for name in names]


def _epochs(group: Group) -> str:
    ends = [0, *group.results[0].epochs]
    return ' + '.join(str(end - start) for start, end in pairwise(ends))


def _mean(group: Group, name: str) -> str:
    values = list(group.by_seed(name).values())
    if not values:
        return NONE
    return f'{statistics.fmean(values):.{3 if name in THREE_DIGITS else 1}f}'


def _further(comparisons: Sequence[Comparison]) -> str:
    head = ['data', 'images', 'arm', 'baseline', 'of', 'seeds', 'difference', '95 % interval']
    rows = []
    for data, size, arm, baseline, column, difference in comparisons:
        numbers = [str(len(difference.values)), signed(difference.mean), interval(difference)]
        rows.append([data, str(size), arm, baseline, COMPARED[column], *numbers])
    return markdown_table(head, rows)


def _about(group: Group) -> str:
    arm = ARMS.get(group.arm)
    options = f' (`{arm.options}`)' if arm is not None and arm.options else ''
    return f'- **{group.arm}**: {group.results[0].shows}{options}'
