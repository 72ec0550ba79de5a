"""The paper's tables beside ours: Markdown, CSV, a plot, and the commands of the runs that are missing."""

import csv
import shlex
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from timm_repaint.markdown import markdown_table
from timm_repaint.report.tables_paper import TITLES, Entry, all_entries
from timm_repaint.report.tables_plot import draw_plot
from timm_repaint.report.tables_rows import Row, compare
from timm_repaint.report.tables_runs import RECIPES, TableRun, read_runs, recipe_path

REPOSITORY = RECIPES.parents[2]
ROW_SCRIPT = 'timm_repaint/recipes/slurm/row.sbatch'
RUNS_FOLDER = Path('output/tables')  # where the script puts runs if nothing is said
MISSING = 'missing'
TRIAL = '*'  # behind a smaller trial's figure
NONE = '-'
HEADINGS = ('row', 'paper', 'ours', 'gain: paper', 'gain: ours', 'runs')
COLUMNS = (
    *('table', 'row', 'metric', 'recipe', 'paper', 'ours', 'trial', 'seeds'),
    *('paper_gain', 'paper_min', 'paper_max', 'gain', 'min', 'max'),
)


def write_tables(
    folders: Sequence[Path],
    output: Path,
    seeds: Sequence[int],
    runs_folder: Path = RUNS_FOLDER,
    tables: Collection[int] = tuple(TITLES),
) -> None:
    """Write tables.md, tables.csv and tables.png to `output`, and print the tables and the missing runs' commands.

    Args:
        folders: Of runs, or with runs below; none: all runs are missing.
        output: Where the files go.
        seeds: That the tables want of each recipe.
        runs_folder: Where the printed commands put runs.
        tables: Numbers of the tables that are wanted.

    Raises:
        UsageError: if a folder holds no run, two runs are of one recipe and seed, or matplotlib is missing.
    """
    runs, remarks = read_runs(folders)
    entries = [entry for entry in all_entries() if entry.table in tables]
    rows = compare(runs, entries)
    output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, seeds, remarks)
    (output / 'tables.md').write_text(text)
    write_csv(rows, output / 'tables.csv')
    print(text)
    commands = missing_commands(runs, entries, seeds, runs_folder)
    if commands:
        print(f'# Runs of {len(commands)} recipes are missing. Set the variables of {ROW_SCRIPT}, and send them off:')
        print('\n'.join(commands))
    draw_plot(rows, output / 'tables.png')  # last: it needs matplotlib


def markdown(rows: Sequence[Row], seeds: Sequence[int], remarks: Sequence[str]) -> str:
    """The tables, and what they rest on."""
    parts = ['# The tables: the paper and these runs\n']
    for table, members in groupby(rows, key=lambda row: row.entry.table):
        lines = markdown_table(HEADINGS, [_cells(row, seeds) for row in members])
        parts.append(f'## Table {table}: {TITLES[table]}\n\n{lines}\n')
    parts.append(
        'Ours: mean over the seeds after the last epoch, %. Gain: over our baseline, percentage points; in brackets '
        'the worst run against the best baseline run, and the reverse.'
        + f' {TRIAL}: smaller trials, see below.' * any(row.trial for row in rows)
        + '\n'
    )
    if remarks:
        parts.append('\n'.join(f'- {remark}' for remark in remarks) + '\n')
    return '\n'.join(parts)


def _cells(row: Row, seeds: Sequence[int]) -> list[str]:
    entry, mean = row.entry, row.mean
    return [
        entry.row,
        NONE if entry.value is None else f'{entry.value:.2f}',
        MISSING if mean is None else f'{mean:.2f}' + TRIAL * row.trial,
        _gain_text(entry.gain, entry.low, entry.high),
        _our_gain_text(row),
        f'{len(row.values)} of {len(set(seeds) | row.values.keys())}',
    ]


def _our_gain_text(row: Row) -> str:
    if row.entry.recipe == row.entry.baseline:
        return NONE
    if row.gain is None:
        return NONE if row.values and row.trial else MISSING
    return _gain_text(*row.gain)


def _gain_text(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return NONE
    return f'{mean:+.2f}' + ('' if low is None else f' ({low:+.2f}, {high:+.2f})')


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """A line a figure; what is missing is empty."""
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            entry = row.entry
            seeds = ' '.join(map(str, sorted(row.values)))
            own = [entry.table, entry.row, entry.metric, entry.recipe, entry.value, row.mean, row.trial, seeds]
            writer.writerow([*own, entry.gain, entry.low, entry.high, *(row.gain or [None] * 3)])


def missing_commands(
    runs: Sequence[TableRun], entries: Sequence[Entry], seeds: Sequence[int], runs_folder: Path
) -> list[str]:
    """A command for each recipe of which the tables still need runs; it goes on with those that have begun."""
    done = {(run.recipe, run.seed) for run in runs}
    commands = []
    for recipe in dict.fromkeys(name for entry in entries for name in (entry.baseline, entry.recipe)):
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
