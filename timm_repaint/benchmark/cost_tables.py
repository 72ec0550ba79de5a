"""The benchmark's figures as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

from timm_repaint.benchmark.cases import DEFAULT
from timm_repaint.benchmark.stopwatch import JUDGE, MASKS, PAINTER, PARTS
from timm_repaint.markdown import markdown_table

Figures = dict[str, Any]
Row = Sequence[str]


def make_tables(cases: Sequence[Figures]) -> str:
    """All tables: cost, growth where there are several sizes or batches, shares of time, sizes of the networks."""
    parts = ['## Cost of the repaint phase', cost_table(cases)]
    growing = [case for case in cases if case['variant'] == DEFAULT]
    if len({(case['img_size_px'], case['batch_size']) for case in growing}) > 1:
        parts += ['## What the repaint part adds, by size', growth_table(growing)]
    parts += ['## Share of the time of a repaint step, percent', share_table(cases)]
    parts += ['## Networks: parameters and multiply-adds of an image, millions', network_table(cases)]
    return '\n\n'.join(parts) + '\n'


def cost_table(cases: Sequence[Figures]) -> str:
    """Time and memory of both kinds of training, and the mean of the ratios where several models are comparable.

    The CPU ratio is that of the processor's time: what the clock would say if no other program ran, on one core.
    """
    header = (
        *('model', 'px', 'batch', 'variant', 'plain s/step', 'repaint s/step'),
        *('ratio (range)', 'CPU ratio', 'whole run'),
        *('plain MiB', 'repaint MiB', 'memory ratio'),
    )
    rows: list[Row] = []
    for case in cases:
        seconds, memory = case['seconds_a_step'], case['peak_memory_mib']
        spread = f'{case["ratio"]:.2f} ({min(case["ratios"]):.2f}-{max(case["ratios"]):.2f})'
        rows.append(
            (
                *_names(case),
                *(f'{seconds[name]:.3f}' for name in ('plain', 'repaint')),
                *(spread, _optional(case.get('processor_ratio')), f'{case["whole_run_ratio"]:.2f}'),
                *(f'{memory[name]:.0f}' for name in ('plain', 'repaint')),
                f'{memory["ratio"]:.2f}',
            )
        )
    rows += [_mean_row(group) for group in _groups(cases) if len(group) > 1]
    return markdown_table(header, rows)


def _groups(cases: Sequence[Figures]) -> list[list[Figures]]:
    """Cases that differ in the model alone."""
    groups: dict[Row, list[Figures]] = {}
    for case in cases:
        groups.setdefault(_names(case)[1:], []).append(case)
    return list(groups.values())


def _mean_row(group: Sequence[Figures]) -> Row:
    ratio = statistics.mean(case['ratio'] for case in group)
    whole = statistics.mean(case['whole_run_ratio'] for case in group)
    memory = statistics.mean(case['peak_memory_mib']['ratio'] for case in group)
    processor = [case['processor_ratio'] for case in group if 'processor_ratio' in case]
    times = (f'{ratio:.2f}', _optional(statistics.mean(processor) if processor else None), f'{whole:.2f}')
    return ('mean', *_names(group[0])[1:], '', '', *times, '', '', f'{memory:.2f}')


def _optional(ratio: float | None) -> str:
    return '' if ratio is None else f'{ratio:.2f}'


def growth_table(cases: Sequence[Figures]) -> str:
    """Time and memory that the repaint phase adds, in all and a million pixels: linear growth keeps the latter.

    The time of S, E, G and D is their share of a step; the difference of two steps carries the noise of T's time too.
    """
    header = (
        *('model', 'px', 'batch', 'added s/step', 'added s a Mpx', 'added CPU s a Mpx'),
        *('S, E, G, D s a Mpx', 'added MiB', 'added MiB a Mpx'),
    )
    rows = []
    for case in sorted(cases, key=lambda c: (c['model'], c['img_size_px'], c['batch_size'])):
        seconds, memory = case['seconds_a_step'], case['peak_memory_mib']
        added_s, added_mib = seconds['repaint'] - seconds['plain'], memory['repaint'] - memory['plain']
        mpx = case['img_size_px'] ** 2 * case['batch_size'] / 1e6
        processor = case.get('processor_s_a_step')
        added_cpu = '' if processor is None else f'{(processor["repaint"] - processor["plain"]) / mpx:.3f}'
        own_s = seconds['repaint'] * sum(case['shares'][part] for part in (MASKS, PAINTER, JUDGE))
        times = (f'{added_s:.3f}', f'{added_s / mpx:.3f}', added_cpu, f'{own_s / mpx:.3f}')
        rows.append((*_names(case)[:3], *times, f'{added_mib:.0f}', f'{added_mib / mpx:.0f}'))
    return markdown_table(header, rows)


def share_table(cases: Sequence[Figures]) -> str:
    rows = [(*_names(case), *(f'{100 * case["shares"][part]:.1f}' for part in PARTS)) for case in cases]
    return markdown_table(('model', 'px', 'batch', 'variant', *PARTS), rows)


def network_table(cases: Sequence[Figures]) -> str:
    rows = [
        (*_names(case), name, f'{size["parameters"] / 1e6:.3f}', f'{size["multiply_adds"] / 1e6:.1f}')
        for case in cases
        for name, size in case['networks'].items()
    ]
    return markdown_table(('model', 'px', 'batch', 'variant', 'network', 'parameters', 'multiply-adds'), rows)


def _names(case: Figures) -> Row:
    return case['model'], str(case['img_size_px']), str(case['batch_size']), case['variant']
