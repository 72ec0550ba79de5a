"""Where the cost comes from, as Markdown."""

from collections.abc import Sequence

from bench.cost.stopwatch import JUDGE, MASKS, PAINTER, PARTS
from timm_repaint.benchmark.cases import DEFAULT
from timm_repaint.benchmark.cost_tables import Figures, cost_table, names_of
from timm_repaint.markdown import markdown_table


def make_tables(cases: Sequence[Figures]) -> str:
    """All tables: cost, growth where there are several sizes or batches, shares of time, sizes of the networks."""
    parts = ['## Cost of the repaint phase', cost_table(cases)]
    growing = [case for case in cases if case['variant'] == DEFAULT]
    if len({(case['img_size_px'], case['batch_size']) for case in growing}) > 1:
        parts += ['## What the repaint part adds, by size', growth_table(growing)]
    parts += ['## Share of the time of a repaint step, percent', share_table(cases)]
    parts += ['## Networks: parameters and multiply-adds of an image, millions', network_table(cases)]
    return '\n\n'.join(parts) + '\n'


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
        rows.append((*names_of(case)[:3], *times, f'{added_mib:.0f}', f'{added_mib / mpx:.0f}'))
    return markdown_table(header, rows)


def share_table(cases: Sequence[Figures]) -> str:
    rows = [(*names_of(case), *(f'{100 * case["shares"][part]:.1f}' for part in PARTS)) for case in cases]
    return markdown_table(('model', 'px', 'batch', 'variant', *PARTS), rows)


def network_table(cases: Sequence[Figures]) -> str:
    rows = [
        (*names_of(case), name, f'{size["parameters"] / 1e6:.3f}', f'{size["multiply_adds"] / 1e6:.1f}')
        for case in cases
        for name, size in case['networks'].items()
    ]
    return markdown_table(('model', 'px', 'batch', 'variant', 'network', 'parameters', 'multiply-adds'), rows)
