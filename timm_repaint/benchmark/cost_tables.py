"""The benchmark's figures as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

from timm_repaint.markdown import markdown_table

Figures = dict[str, Any]
Row = Sequence[str]


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
                *names_of(case),
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
        groups.setdefault(names_of(case)[1:], []).append(case)
    return list(groups.values())


def _mean_row(group: Sequence[Figures]) -> Row:
    ratio = statistics.mean(case['ratio'] for case in group)
    whole = statistics.mean(case['whole_run_ratio'] for case in group)
    memory = statistics.mean(case['peak_memory_mib']['ratio'] for case in group)
    processor = [case['processor_ratio'] for case in group if 'processor_ratio' in case]
    times = (f'{ratio:.2f}', _optional(statistics.mean(processor) if processor else None), f'{whole:.2f}')
    return ('mean', *names_of(group[0])[1:], '', '', *times, '', '', f'{memory:.2f}')


def _optional(ratio: float | None) -> str:
    return '' if ratio is None else f'{ratio:.2f}'


def names_of(case: Figures) -> Row:
    """What tells a case from others."""
    return case['model'], str(case['img_size_px']), str(case['batch_size']), case['variant']
