"""The paper's tables beside ours: Markdown, CSV, a plot, and the commands of the runs that are missing."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timm_repaint.markdown import markdown_table
from timm_repaint.optional import new_figure
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
HEADINGS = ('row', 'paper', 'ours', 'gain: paper', 'gain: ours', 'runs')
COLUMNS = [
    *('table', 'row', 'metric', 'recipe', 'paper', 'ours', 'trial', 'seeds'),
    *('paper_gain', 'paper_min', 'paper_max', 'gain', 'min', 'max'),
]

WIDTH_IN, ROW_HEIGHT_IN, PANEL_HEIGHT_IN = 8.0, 0.28, 0.8
DPI = 150
PAPER_COLOUR, OUR_COLOUR, ZERO_COLOUR = '#7f9fbf', '#b3401f', '#888888'


def write_tables(
    folders: Sequence[Path],
    output: Path,
    seeds: Sequence[int],
    runs_folder: Path = RUNS_FOLDER,
    tables: Collection[int] = tuple(TITLES),
) -> None:
    """Write tables.md, tables.csv and tables.png to `output`, and print the tables and the missing runs' commands.

    Without folders, of runs or with runs below, all runs are missing; the commands put them into `runs_folder`.

    Raises:
        UsageError: if a folder holds no run, two runs are of one recipe and seed, or pandas or matplotlib is missing.
    """
    figures = paper_figures()
    figures = figures[figures['table'].isin(tables)]
    runs, remarks = read_runs(folders)
    rows = compare(runs, figures)
    output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, seeds, remarks)
    (output / 'tables.md').write_text(text)
    rows.to_csv(output / 'tables.csv', columns=COLUMNS, index=False, lineterminator='\r\n')
    print(text)
    commands = missing_commands(runs, figures, seeds, runs_folder)
    if commands:
        print(f'# Runs of {len(commands)} recipes are missing. Set the variables of {ROW_SCRIPT}, and send them off:')
        print('\n'.join(commands))
    draw_plot(rows, output / 'tables.png')  # last: it needs matplotlib


def compare(runs: Sequence[TableRun], figures: Any) -> Any:
    """The paper's figures (see `paper_figures`) with ours beside them.

    Returns:
        The figures with 'ours' (the mean over seeds), 'seeds', 'trial' (whether they are smaller trials), and the gain
        over our baseline by the paper's rule: 'gain' of the means, 'min' of our worst run against the best baseline
        run, 'max' the reverse. Missing: for the baseline itself, without runs, and where only one is a trial.
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
    trials = {run.recipe for run in runs if run.scaled}
    rows['trial'] = rows['recipe'].isin(trials)
    fair = (rows['recipe'] != rows['baseline']) & (rows['trial'] == rows['baseline'].isin(trials))
    for gain, own, other in (('gain', 'ours', 'ours'), ('min', 'worst', 'best'), ('max', 'best', 'worst')):
        rows[gain] = (rows[own] - rows[f'base_{other}']).where(fair)
    return rows


def markdown(rows: Any, seeds: Sequence[int], remarks: Sequence[str]) -> str:
    """The tables, and what they rest on."""
    parts = ['# The tables: the paper and these runs\n']
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


def draw_plot(rows: Any, path: Path) -> None:
    """Write the plot of `compare`'s rows, a panel for each table; arms without runs have the paper's mark alone.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    values = rows.dropna(subset='paper').drop_duplicates(['recipe', 'metric']).set_index(['recipe', 'metric'])['paper']
    arms = rows[rows['recipe'] != rows['baseline']].join(values.rename('paper_baseline'), on=['baseline', 'metric'])
    # Where it is not printed, the paper's values give it.
    arms['paper_gain'] = arms['paper_gain'].fillna(arms['paper'] - arms['paper_baseline'])
    tables = [(table, members) for table, members in arms.groupby('table')]
    heights = [len(members) * ROW_HEIGHT_IN + PANEL_HEIGHT_IN for _, members in tables]
    figure = new_figure(path, WIDTH_IN, sum(heights))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (table, members) in zip(panels, tables, strict=True):
        _draw_marks(panel, -0.15, members[['paper_gain', 'paper_min', 'paper_max']], PAPER_COLOUR)
        _draw_marks(panel, 0.15, members[['gain', 'min', 'max']], OUR_COLOUR)
        panel.axvline(0, color=ZERO_COLOUR, linewidth=1, zorder=0)
        panel.set_title(f'Table {table}', fontsize=10)
        panel.set_yticks(range(len(members)), members['row'], fontsize=8)
        panel.set_ylim(len(members) - 0.5, -0.5)  # the first on top
        panel.grid(axis='x', alpha=0.3)
    panels[-1].set_xlabel('gain over the baseline, percentage points (blue: paper, red: these runs)', fontsize=9)
    figure.savefig(path, dpi=DPI)


def _draw_marks(panel: Any, offset: float, gains: Any, colour: str) -> None:
    """A mark a row that has a gain, beside the row's line; whiskers from the lowest to the highest, where there are."""
    mean, low, high = gains.to_numpy(float).T
    whiskers = np.clip([mean - low, high - mean], 0, None)
    panel.errorbar(mean, np.arange(len(mean)) + offset, None, whiskers, 'o', color=colour, ms=4, capsize=2)
