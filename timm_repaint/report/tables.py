"""The paper's tables beside ours: Markdown, CSV, and the commands of the runs that are missing."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError
from timm_repaint.files import check_ours, write_text
from timm_repaint.markdown import markdown_table
from timm_repaint.report.tables_runs import (
    RECIPES,
    TITLES,
    TableRun,
    load_pandas,
    paper_figures,
    read_runs,
    recipe_path,
)  # fmt: skip

REPOSITORY = RECIPES.parents[2]
ROW_SCRIPT = 'timm_repaint/recipes/slurm/row.sbatch'
RUNS_FOLDER = Path('output/tables')  # where the script puts runs if nothing is said
MISSING = 'missing'
TRIAL = '*'  # behind a smaller trial's figure
NONE = '-'
TITLE = '# The tables: the paper and these runs'
HEADINGS = ('row', 'paper', 'ours', 'gain: paper', 'gain: ours', 'runs')
COLUMNS = [
    *('table', 'row', 'metric', 'recipe', 'paper', 'ours', 'trial', 'seeds'),
    *('paper_gain', 'paper_min', 'paper_max', 'gain', 'min', 'max'),
]


def write_tables(
    folders: Sequence[Path],
    output: Path,
    seeds: Sequence[int],
    runs_folder: Path = RUNS_FOLDER,
    tables: Collection[int] = tuple(TITLES),
) -> None:
    """Write tables.md and tables.csv to `output`, and print the tables and the missing runs' commands.

    Without folders, of runs or with runs below, all runs are missing; the commands put them into `runs_folder`.

    Raises:
        UsageError: if a folder holds no run, two runs are of one recipe and seed, pandas is missing, or the files
            cannot be written or are somebody's.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f'--output {output} is no folder; name one, or none for the current folder')
    check_ours(output / 'tables.md', TITLE, 'table')
    check_ours(output / 'tables.csv', ','.join(COLUMNS[:4]), 'table')
    figures = paper_figures()
    figures = figures[figures['table'].isin(tables)]
    runs, remarks = read_runs(folders)
    rows = compare(runs, figures)
    text = markdown(rows, seeds, remarks)
    write_text(output / 'tables.md', text)
    write_text(output / 'tables.csv', rows.to_csv(columns=COLUMNS, index=False, lineterminator='\r\n'))
    print(text)
    commands = missing_commands(runs, figures, seeds, runs_folder)
    if commands:
        print(f'# Runs of {len(commands)} recipes are missing. Set the variables of {ROW_SCRIPT}, and send them off:')
        print('\n'.join(commands))


def compare(runs: Sequence[TableRun], figures: Any) -> Any:
    """The paper's figures (see `paper_figures`) with ours beside them.

    Returns:
        The figures with 'ours' (the mean over seeds), 'seeds', 'trial' (whether they are smaller trials), and the gain
        over our baseline by the paper's rule: 'gain' of the means, 'min' of our worst run against the best baseline
        run, 'max' the reverse. Missing: for the baseline itself, without runs, and where trials differ in size.
    """
    values = [(run.recipe, name, run.seed, value) for run in runs for name, value in run.metrics.items()]
    ours = load_pandas().DataFrame(values, columns=['recipe', 'metric', 'seed', 'value']).sort_values('seed')
    by_row = ours.groupby(['recipe', 'metric']).agg(
        ours=('value', 'mean'),
        worst=('value', 'min'),
        best=('value', 'max'),
        seeds=('seed', lambda seeds: ' '.join(map(str, seeds))),
    )
    rows = figures.join(by_row, on=['recipe', 'metric'])
    rows = rows.join(by_row.add_prefix('base_'), on=['baseline', 'metric']).fillna({'seeds': ''})
    scales = {run.recipe: run.scale for run in runs}
    rows['trial'] = rows['recipe'].isin({run.recipe for run in runs if run.scaled})
    own_scale, base_scale = (rows[name].map(scales) for name in ('recipe', 'baseline'))
    fair = (rows['recipe'] != rows['baseline']) & (own_scale == base_scale)
    for gain, own, other in (('gain', 'ours', 'ours'), ('min', 'worst', 'best'), ('max', 'best', 'worst')):
        rows[gain] = (rows[own] - rows[f'base_{other}']).where(fair)
    return rows


def markdown(rows: Any, seeds: Sequence[int], remarks: Sequence[str]) -> str:
    """The tables, and what they rest on."""
    parts = [f'{TITLE}\n']
    for table, members in rows.groupby('table'):
        lines = markdown_table(HEADINGS, [_cells(row, set(seeds)) for row in members.itertuples()])
        parts.append(f'## Table {table}: {TITLES[table]}\n\n{lines}\n')
    parts.append(
        'Ours: mean over the seeds after the last epoch, %. Gain: over our baseline, percentage points; in brackets '
        'the worst run against the best baseline run, and the reverse.'
        + f' {TRIAL}: smaller trials, see below.' * bool(rows['trial'].any())
        + '\n'
    )
    if remarks:
        parts.append('\n'.join(f'- {remark}' for remark in remarks) + '\n')
    return '\n'.join(parts)


def _cells(row: Any, seeds: set[int]) -> list[str]:
    done = set(map(int, row.seeds.split()))
    no_gain = NONE if row.recipe == row.baseline or (done and row.trial) else MISSING
    return [
        row.row,
        _text('{:.2f}', row.paper) or NONE,
        _text('{:.2f}', row.ours, TRIAL * row.trial) or MISSING,
        _gain_text(row.paper_gain, row.paper_min, row.paper_max) or NONE,
        _gain_text(row.gain, row.min, row.max) or no_gain,
        f'{len(done)} of {len(seeds | done)}',
    ]


def _gain_text(mean: float, low: float, high: float) -> str:
    return _text('{:+.2f}', mean, _text(' ({:+.2f}, ', low) + _text('{:+.2f})', high))


def _text(form: str, value: float, behind: str = '') -> str:
    """The value in this form, '' where there is none."""
    return form.format(value) + behind if value == value else ''  # nan: there is none


def missing_commands(runs: Sequence[TableRun], figures: Any, seeds: Sequence[int], runs_folder: Path) -> list[str]:
    """A command for each recipe of which the tables still need runs; it goes on with those that have begun."""
    done = {(run.recipe, run.seed) for run in runs}
    commands = []
    for recipe in dict.fromkeys(figures[['baseline', 'recipe']].to_numpy().ravel()):
        missing = [seed for seed in dict.fromkeys(seeds) if (recipe, seed) not in done]
        if missing:
            commands.append(command(recipe, missing, runs_folder))
    return commands


def command(recipe: str, seeds: Sequence[int], runs_folder: Path) -> str:
    """Trains a recipe with some seeds, each a job of an array, all phases that it has."""
    output = '' if runs_folder == RUNS_FOLDER else f'OUTPUT={shlex.quote(str(runs_folder))} '
    array = ','.join(map(str, seeds))
    path = recipe_path(recipe).relative_to(REPOSITORY)
    return f'{output}sbatch --array={array} {ROW_SCRIPT} {path}'
