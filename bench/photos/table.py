"""Means of the arms over their seeds, and differences from their crop alone in pairs of one seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.photos.arms import ARMS, PLAIN
from bench.seeds import paired_difference, pd
from timm_repaint.files import write_text
from timm_repaint.markdown import markdown_table

NO_TESTS = ('setting', 'arm', 'seed', 'classes', 'seconds')
OWN = 'validation'
OTHERS = ['corrupted', 'shape', 'texture', 'mAP', 'AP50', 'corrupted mAP', 'corrupted AP50']
MEAN = 'other domains'


def write_results(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write `results.csv`, a line a run, `classes.csv`, a column an arm, and `table.md`, each in one step.

    Args:
        rows: By run: setting, arm, seed, seconds, and by test top-1, or a detector's average precision, in %;
            `classes`: top-1 by test and class.
        folder: Where the files go.
    """
    domains = domains_of(rows)
    frame = pd.DataFrame(rows).reindex(columns=['setting', 'arm', 'seed', OWN, *domains, *OTHERS, 'seconds'])
    order = {name: place for place, name in enumerate(ARMS)}
    by = ['setting', 'arm', 'seed']
    frame = frame.sort_values(by, key=lambda column: column.map(order) if column.name == 'arm' else column)
    write_text(folder / 'results.csv', frame.round(2).to_csv(index=False))
    write_text(folder / 'table.md', make_table(frame.round(2), domains))
    if any('classes' in row for row in rows):
        write_text(folder / 'classes.csv', by_class(rows).round(1).to_csv())


def by_class(rows: Sequence[dict[str, Any]]) -> Any:
    """Top-1 of each setting, test, class and seed, a column an arm."""
    found = [
        {**{key: row[key] for key in ('setting', 'seed', 'arm')}, 'test': test, 'class': name, 'top-1': value}
        for row in rows
        for test, classes in row.get('classes', {}).items()
        for name, value in classes.items()
    ]
    return pd.DataFrame(found).pivot(index=['setting', 'test', 'class', 'seed'], columns='arm', values='top-1')


def domains_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The other domains than the training photographs' that runs were tested on."""
    return sorted({test for row in rows for test in row} - {*NO_TESTS, OWN, *OTHERS})


def make_table(frame: Any, domains: Sequence[str]) -> str:
    """Markdown: a table for each setting and baseline, a row an arm, and what the arms are."""
    parts = []
    frame = frame.assign(baseline=[ARMS[arm].baseline if arm in ARMS else PLAIN for arm in frame['arm']])
    for (setting, baseline), rows in frame.set_index('seed').groupby(['setting', 'baseline'], sort=False):
        own = [domain for domain in domains if rows[domain].notna().any()]
        rows = rows.assign(**{MEAN: rows[own].mean(axis=1, skipna=False)})
        plain = rows[rows['arm'] == baseline]
        tests = [test for test in (OWN, *domains, *OTHERS, MEAN) if rows[test].notna().any()]
        table = []
        for arm, group in rows.groupby('arm', sort=False):
            others = None if arm == baseline else plain
            cells = [cell(group[test], None if others is None else others[test]) for test in tests]
            table.append([arm, ' '.join(map(str, sorted(group.index))), *cells])
        shows = [f'- `{arm}`: {ARMS[arm].shows}' for arm in rows['arm'].unique() if arm in ARMS]
        table_of_arms = markdown_table(('arm', 'seeds', *tests), table)
        parts += [f'## {setting}, against {baseline}', table_of_arms, '\n'.join(shows)]
    return '\n\n'.join(parts) + '\n'


def cell(values: Any, others: Any = None) -> str:
    """'mean (+difference ± half-width)' of an arm's values by seed, against others'."""
    if not values.notna().any():
        return '-'
    text = f'{values.mean():.1f}'
    difference = None if others is None else paired_difference(values, others)
    if difference is None:
        return text
    half = difference.half_width
    return f'{text} ({difference.mean:+.1f}{"" if half is None else f" ± {half:.1f}"})'
