"""The bench's table in Markdown: means over seeds, and paired differences with their intervals."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.evidence.arms import ARMS, CONTROLS, SAMPLES
from bench.evidence.results import Result, to_frame
from bench.seeds import Difference, paired_difference
from timm_repaint.markdown import markdown_table

NONE = '-'
# Columns of the results: name -> heading. Those that no run has are left out.
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
KEYS = ['data', 'size', 'arm']

Key = tuple[str, int, str]


class Comparison(NamedTuple):
    """A paired difference of two arms on the same images."""

    data: str
    size: int
    arm: str
    baseline: str
    column: str
    difference: Difference


def first_results(results: Sequence[Result]) -> dict[Key, Result]:
    """The first run of each arm on each set of images, which knows what all of them have in common."""
    firsts: dict[Key, Result] = {}
    for result in results:
        firsts.setdefault((result.data, result.size, result.arm), result)
    return firsts


def compare(results: Sequence[Result]) -> Iterator[Comparison]:
    """Each arm against its baseline, then repaint arms against the controls; what has no common seed is left out."""
    if not results:
        return
    firsts, frame = first_results(results), to_frame(results).set_index('seed')
    groups = dict(iter(frame.groupby(KEYS, sort=False)))
    pairs = [(key, first.baseline) for key, first in firsts.items()]
    rivals = [key for key, first in firsts.items() if key[2] not in CONTROLS and is_repaint_on_plain(first)]
    pairs += [(key, control) for control in CONTROLS for key in rivals]
    pairs += [(key, SAMPLES[key[2]]) for key in firsts if key[2] in SAMPLES]
    for column in COMPARED:
        for key, baseline in pairs:
            other = (*key[:2], baseline)
            if column in frame and other in groups:
                difference = paired_difference(groups[key][column], groups[other][column])
                if difference is not None:
                    yield Comparison(*key, baseline, column, difference)


def is_repaint_on_plain(result: Result) -> bool:
    """Whether the arm has repaints and is compared with plain training."""
    return result.baseline == 'plain' and bool(result.options.get('repaint'))


def signed(value: float) -> str:
    return f'{value:+.2f}'


def interval(difference: Difference) -> str:
    """The 95 % interval as '+0.50 to +3.70'; '-' with one seed."""
    if difference.half_width is None:
        return NONE
    return f'{signed(difference.mean - difference.half_width)} to {signed(difference.mean + difference.half_width)}'


def make_table(results: Sequence[Result]) -> str:
    """The whole text of `table.md`."""
    firsts, comparisons, frame = first_results(results), list(compare(results)), to_frame(results)
    groups = frame.groupby(KEYS, sort=False)
    top1 = groups['top1'].agg(['count', 'mean', 'std'])
    names = [name for name in MEANS if name in frame]
    means = groups[names].mean()
    differences = {c[:3]: c.difference for c in comparisons if c[3:5] == (firsts[c[:3]].baseline, 'top1')}
    rows = []
    for key, first in firsts.items():
        count, mean, deviation = top1.loc[key]
        row = [first.data, str(first.size), first.arm, _epochs(first), str(int(count)), f'{mean:.2f}']
        row.append(_number(deviation, 2))
        difference = differences.get(key)
        row += [NONE] * 3 if difference is None else [signed(difference.mean), interval(difference), first.baseline]
        rows.append(row + [_number(means.loc[key, name], 3 if name in THREE_DIGITS else 1) for name in names])
    head = ['data', 'images', 'arm', 'epochs', 'seeds', 'top-1, %', 'sd', 'difference', '95 % interval', 'baseline']
    parts = ['## Arms', markdown_table(head + [MEANS[name] for name in names], rows)]
    parts.append(
        'Top-1 is that of the last epoch. A difference is the mean over seeds of the difference between runs of one '
        "seed, its interval by Student's t. Epochs: first phase + second phase."
    )
    further = [c for c in comparisons if c.column != 'top1' or c.baseline in (*CONTROLS, *SAMPLES.values())]
    if further:
        parts += ['## Further differences', _further(further)]
    parts += ['## What the arms are', '\n'.join(dict.fromkeys(map(_about, firsts.values())))]
    return '\n\n'.join(parts) + '\n'


def _epochs(result: Result) -> str:
    return ' + '.join(str(end - start) for start, end in pairwise([0, *result.epochs]))


def _number(value: float, digits: int) -> str:
    return f'{value:.{digits}f}' if value == value else NONE  # nan: there is none


def _further(comparisons: Sequence[Comparison]) -> str:
    head = ['data', 'images', 'arm', 'baseline', 'of', 'seeds', 'difference', '95 % interval']
    rows = []
    for data, size, arm, baseline, column, difference in comparisons:
        numbers = [str(len(difference.values)), signed(difference.mean), interval(difference)]
        rows.append([data, str(size), arm, baseline, COMPARED[column], *numbers])
    return markdown_table(head, rows)


def _about(result: Result) -> str:
    arm = ARMS.get(result.arm)
    options = f' (`{arm.options}`)' if arm is not None and arm.options else ''
    return f'- **{result.arm}**: {result.shows}{options}'
