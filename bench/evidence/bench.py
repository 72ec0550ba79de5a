"""The bench from options to table: START HERE for the order of the steps."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.evidence.arms import select_arms
from bench.evidence.data import Subset, plan_subset
from bench.evidence.plan import Place, Run, plan_runs
from bench.evidence.plot import draw_plot
from bench.evidence.results import is_finished, leave_result, read_results, write_csv
from bench.evidence.table import make_table
from bench.evidence.tree import make_tree
from bench.runner import make_masks, run_all, tell_failed
from timm_repaint.errors import UsageError


@dataclass(frozen=True)
class Bench:
    """What is asked for; the help of each option says what it does.

    Attributes:
        extra: options of train.py for every run.
    """

    data: Sequence[str]
    output: Path
    sizes: Sequence[int]
    arms: Sequence[str]
    custom_arms: Sequence[str]
    seeds: Sequence[int]
    dev: bool
    jobs: int
    extra: Sequence[str] = ()


def run_bench(bench: Bench, dry_run: bool = False) -> int:
    """Do the runs that are not done yet, then write `results.csv`, `table.md` and `plot.png`.

    Args:
        bench: what to run.
        dry_run: print the commands of those runs, and do nothing.

    Returns:
        The exit code: 1 if a run failed.
    """
    subsets = [plan_subset(data, size, bench.dev) for data in bench.data for size in bench.sizes]
    check_names(subsets)
    arms = select_arms(bench.arms, bench.custom_arms)
    runs = plan_runs(subsets, arms, bench.seeds, Place(bench.output, tuple(bench.extra)))
    pending = [run for run in runs if not is_finished(run)]
    if dry_run:
        for run in pending:
            print('\n'.join([f'# {run.name}', *map(shlex.join, run.commands)]))
        return 0
    prepare(subsets, pending, bench)
    print(f'{len(runs)} runs, {len(runs) - len(pending)} of them done before; results in {bench.output}')
    failed = run_all(pending, bench.jobs, leave_result, lambda: write_tables(bench.output))
    write_report(bench.output)
    return tell_failed(failed)


def check_names(subsets: Sequence[Subset]) -> None:
    """Refuse two data sets whose results could not be told apart."""
    names = [subset.name for subset in subsets]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f'{twice[0]} is there twice; give each size once, and data folders of different names')


def prepare(subsets: Sequence[Subset], pending: Sequence[Run], bench: Bench) -> None:
    """Make the trees of images that the runs need, and the masks that they read from files."""
    for subset in subsets:
        own = [run for run in pending if run.subset == subset]
        if own:
            make_tree(subset, bench.output)
        if any(run.stored_masks for run in own):
            make_masks(subset.tree(bench.output) / 'train', subset.masks(bench.output), bench.jobs)


def write_tables(output: Path) -> str:
    """Write `results.csv` and `table.md` from all results so far; returns the table's text, '' without any result."""
    results = read_results(output)
    if not results:
        return ''
    table = make_table(results)
    write_csv(results, output / 'results.csv')
    (output / 'table.md').write_text(table)
    return table


def write_report(output: Path) -> None:
    """Write tables and plot, and print the table."""
    print(write_tables(output) or 'no run has finished')
    try:
        draw_plot(read_results(output), output / 'plot.png')
    except UsageError as error:  # the table is there without it
        print(error, file=sys.stderr)
