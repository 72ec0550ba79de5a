"""The paper's tables beside ours: Markdown, CSV, a plot, and the commands of the runs that are missing."""

import csv
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from timm_repaint.report.tables_paper import TITLES, all_entries
from timm_repaint.report.tables_plot import draw_plot
from timm_repaint.report.tables_rows import Row, compare
from timm_repaint.report.tables_runs import FIRST_PHASES, TableRun, load_recipes, read_runs

MISSING = 'missing'
NONE = '-'
HEADINGS = ('row', 'paper', 'ours', 'gain: paper', 'gain: ours', 'runs')
COLUMNS = (
    *('table', 'row', 'metric', 'recipe', 'paper', 'ours', 'seeds'),
    *('paper_gain', 'paper_min', 'paper_max', 'gain', 'min', 'max'),
)


def write_tables(folders: Sequence[Path], output: Path, seeds: Sequence[int], runs_folder: Path) -> None:
    """Write tables.md, tables.csv and tables.png to `output`, and print the tables and the missing runs' commands.

    Raises:
        UsageError: if a folder holds no run, two runs are of one recipe and seed, or matplotlib is missing.
    """
    runs, remarks = read_runs(folders)
    rows = compare(runs)
    output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, seeds, remarks)
    (output / 'tables.md').write_text(text)
    write_csv(rows, output / 'tables.csv')
    draw_plot(rows, output / 'tables.png')
    print(text)
    commands = missing_commands(runs, seeds, runs_folder)
    if commands:
        print(f'# {len(commands)} runs are missing. Set DATA, DEEPLAB (weights) and STYLIZED, and send them off:')
        print('\n'.join(commands))


def markdown(rows: Sequence[Row], seeds: Sequence[int], remarks: Sequence[str]) -> str:
    """The tables, and what they rest on."""
    parts = ['# The tables: the paper and these runs\n']
    for table, members in groupby(rows, key=lambda row: row.entry.table):
        cells = [HEADINGS, ['---', *['---:'] * (len(HEADINGS) - 1)], *(_cells(row, seeds) for row in members)]
        lines = '\n'.join('| ' + ' | '.join(line) + ' |' for line in cells)
        parts.append(f'## Table {table}: {TITLES[table]}\n\n{lines}\n')
    parts.append(
        'Ours: mean over the seeds after the last epoch, %. Gain: over our baseline, percentage points; in brackets '
        'the worst run against the best baseline run, and the reverse.\n'
    )
    if remarks:
        parts.append('\n'.join(f'- {remark}' for remark in remarks) + '\n')
    return '\n'.join(parts)


def _cells(row: Row, seeds: Sequence[int]) -> list[str]:
    entry, mean = row.entry, row.mean
    return [
        entry.row,
        NONE if entry.value is None else f'{entry.value:.2f}',
        MISSING if mean is None else f'{mean:.2f}',
        _gain_text(entry.gain, entry.low, entry.high),
        _our_gain_text(row),
        f'{len(row.values)} of {len(set(seeds) | row.values.keys())}',
    ]


def _our_gain_text(row: Row) -> str:
    if row.entry.recipe == row.entry.baseline:
        return NONE
    return MISSING if row.gain is None else _gain_text(*row.gain)


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
            own = [entry.table, entry.row, entry.metric, entry.recipe, entry.value, row.mean, seeds]
            writer.writerow([*own, entry.gain, entry.low, entry.high, *(row.gain or [None] * 3)])


def missing_commands(runs: Sequence[TableRun], seeds: Sequence[int], runs_folder: Path) -> list[str]:
    """A command for each run that the tables still need, in their order; it goes on with a run that has begun."""
    done = {(run.recipe, run.seed) for run in runs}
    recipes = dict.fromkeys(name for entry in all_entries() for name in (entry.baseline, entry.recipe))
    wanted = [(recipe, seed) for recipe in recipes for seed in seeds if (recipe, seed) not in done]
    return [f'sbatch --gpus-per-node=8 --wrap={shlex.quote(command(*run, runs_folder))}' for run in wanted]


def command(recipe: str, seed: int, runs_folder: Path) -> str:
    """Trains a recipe with a seed on the eight GPUs of a node, both phases where there are two."""
    launch, options = 'torchrun --nproc-per-node=8', load_recipes()[recipe]
    name = f'{recipe}-seed{seed}'
    folder = shlex.quote(str(runs_folder))
    run = f'-c timm_repaint/recipes/tables/{recipe}.yaml --seed {seed} --output {folder} --experiment {name}'
    if recipe in FIRST_PHASES:
        first = FIRST_PHASES[recipe]
        before = command(first, seed, runs_folder).replace('"$DATA"', '"$STYLIZED"')
        checkpoint = f'{folder}/{first}-seed{seed}/last.pth.tar'
        return f'{before} && {launch} train.py "$DATA" {run} --resume {checkpoint}'
    text = f'{launch} train.py "$DATA" {run} --resume auto'
    if options['repaint'] and options['mask'] == 'deeplabv2':
        text += ' --mask-checkpoint "$DEEPLAB"'
    if options['repaint']:
        text += f' && {launch} fine_tune.py {folder}/{name} --resume auto'
    return text
