"""Cost of the repaint phase: `timm-repaint benchmark --models resnet50 --output DIR`. START HERE.

A case is a model at a size. For each, plain training and the repaint phase are built by the engine's own stages
(`arms.py`) and take turns in one process (`measure.py`); `stopwatch.py` says what the time went into, `count.py` how
large the networks are, and `memory.py` trains each once more in a process of its own. `benchmark.json`, `benchmark.md`
and `shares.png` in the output folder are written anew after each case.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from timm_repaint.benchmark.cases import VARIANTS, Case, check_data, is_detector, plan_cases, train_options
from timm_repaint.benchmark.cost_tables import make_tables
from timm_repaint.benchmark.measure import measure, num_stages
from timm_repaint.benchmark.plot import draw_shares
from timm_repaint.commandline import at_least
from timm_repaint.errors import UsageError, run_command
from timm_repaint.progress import progress

PAPER_MODELS = ('mobilenetv2_100', 'resnet50', *(f'efficientnet_b{size}' for size in range(4)))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='timm-repaint benchmark',
        description='Time, memory and size of the repaint phase against plain training. What follows -- are options of '
        'train.py for both, as in: -- --repaint-prob 0.25 --device cpu',
        epilog='variants: ' + '; '.join(f'{name}: {" ".join(own)}' for name, own in VARIANTS.items() if own),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    help_models = 'timm classifiers, or EfficientDets of effdet'
    add('--models', nargs='+', default=list(PAPER_MODELS), metavar='NAME', help=help_models)
    add('--img-size', type=at_least(1), default=224, metavar='PX', help='height and width')
    add('--batch-size', type=at_least(1), default=8, metavar='N', help='images in a batch')
    add('--sizes', type=at_least(1), nargs='+', default=[], metavar='PX', help='more image sizes, for how cost grows')
    add('--batch-sizes', type=at_least(1), nargs='+', default=[], metavar='N', help='more batches, for how cost grows')
    add('--variants', nargs='*', metavar='NAME', help='ways to pay less, from below; without a name: all')
    add('--rounds', type=at_least(1), default=7, metavar='N', help="pairs of timings; their ratios' median counts")
    add('--steps', type=at_least(1), default=3, metavar='N', help='batches of a timing, rounded up to whole patterns')
    add(
        '--data',
        metavar='DIR',
        help='read images while measuring, in this process (or -- -j N), masks cut on the fly (or -- --mask-dir DIR); '
        'unset: built-in images held in memory with their masks, as a loader ahead of time has them',
    )
    add('--output', type=Path, required=True, metavar='DIR', help='where the figures go')
    return parser


def main() -> None:
    argv = sys.argv[1:]
    cut = argv.index('--') if '--' in argv else len(argv)
    options, extra = build_parser().parse_args(argv[:cut]), argv[cut + 1 :]
    for name in options.models:
        is_detector(name)  # stops on one that there is not
    check_data(options.data)
    logging.getLogger('timm_repaint').setLevel(logging.ERROR)  # the engine's own log would tear the bar
    run_cases(plan_cases(options, extra), options)


def run_cases(cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Measure case by case with a progress bar, keep the files up to date, and print the tables."""
    for case in cases:
        train_options(case, repaint=True)  # stops on a conflict
    options.output.mkdir(parents=True, exist_ok=True)
    figures: list[dict[str, Any]] = []
    stages = (stage for case in cases for stage in _stages(case, options.rounds))
    for result in progress(stages, 'benchmark', len(cases) * num_stages(options.rounds)):
        if result is not None:
            figures.append(result)
            write_figures(figures, options.output)
    print(make_tables(figures))
    try:
        draw_shares(figures, options.output / 'shares.png')
    except UsageError as error:  # the tables are there without it
        print(error, file=sys.stderr)


def _stages(case: Case, rounds: int) -> Iterator[dict[str, Any] | None]:
    with tempfile.TemporaryDirectory() as folder:
        yield from measure(case, rounds, Path(folder))


def write_figures(figures: Sequence[dict[str, Any]], output: Path) -> None:
    """Write `benchmark.json` and `benchmark.md`."""
    machine = {
        'processor': platform.processor() or platform.machine(),
        'threads': torch.get_num_threads(),
        'accelerator': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
    }
    (output / 'benchmark.json').write_text(json.dumps({'machine': machine, 'cases': list(figures)}, indent=2) + '\n')
    (output / 'benchmark.md').write_text(make_tables(figures))


if __name__ == '__main__':
    run_command(main)
