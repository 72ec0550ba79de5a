"""Means of the arms over their seeds, and differences from plain training in pairs of one seed."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

from bench.evidence.statistics import paired_difference
from timm_repaint.markdown import markdown_table

TESTS = ('validation', 'art_painting', 'cartoon')
OTHER_DOMAINS = ('art_painting', 'cartoon')
BASELINE = 'plain'


def read_scores(path: Path) -> dict[tuple[str, str], dict[int, dict[str, float]]]:
    """(setting, arm) -> seed -> top-1 by test, with 'other domains' their mean where both are there."""
    scores: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    with open(path, newline='') as file:
        for row in csv.DictReader(file):
            values = {name: float(row[name]) for name in TESTS if row[name]}
            if all(name in values for name in OTHER_DOMAINS):
                values['other domains'] = statistics.mean(values[name] for name in OTHER_DOMAINS)
            scores[row['setting'], row['arm']][int(row['seed'])] = values
    return dict(scores)


def cell(scores: dict[int, dict[str, float]], plain: dict[int, dict[str, float]], test: str) -> str:
    """'mean (+difference ± half-width)' of an arm on a test."""
    values, others = ({seed: row[test] for seed, row in arm.items() if test in row} for arm in (scores, plain))
    if not values:
        return '-'
    text = f'{statistics.mean(values.values()):.1f}'
    difference = paired_difference(values, others)
    if scores is plain or difference is None:
        return text
    half = difference.half_width
    return f'{text} ({difference.mean:+.1f}{"" if half is None else f" ± {half:.1f}"})'


def write_table(results: Path, target: Path) -> None:
    """Markdown: a table a setting, a row an arm."""
    scores = read_scores(results)
    parts = []
    for setting in dict.fromkeys(setting for setting, _ in scores):
        plain = scores.get((setting, BASELINE), {})
        tests = [test for test in (*TESTS, 'other domains') if any(test in v for v in plain.values())] or list(TESTS)
        rows = []
        for (name, arm), by_seed in scores.items():
            if name == setting:
                cells = [cell(plain if arm == BASELINE else by_seed, plain, test) for test in tests]
                rows.append([arm, ' '.join(map(str, sorted(by_seed))), *cells])
        parts += [f'## {setting}', markdown_table(('arm', 'seeds', *tests), rows)]
    target.write_text('\n\n'.join(parts) + '\n')
