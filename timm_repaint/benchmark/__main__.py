"""Cost of the repaint phase: `timm-repaint benchmark --models resnet50 --output DIR`. START HERE.

A case is a model at a size. For each, plain training and the repaint phase are built by the engine's own stages
and take turns in one process (`measure.py`), and train once more in processes of their own for memory.
`benchmark.json` and `benchmark.md` in the output folder are written anew after each case.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from timm_repaint.benchmark.cases import VARIANTS, Case, is_detector, plan_cases, train_options
from timm_repaint.benchmark.cost_tables import cost_table
from timm_repaint.benchmark.measure import Arm, measure, num_stages
from timm_repaint.commandline import at_least
from timm_repaint.commands.show_environment import facts
from timm_repaint.errors import UsageError, as_mistake, run_command
from timm_repaint.files import check_ours
from timm_repaint.log import logger
from timm_repaint.progress import progress

PAPER_MODELS = ('mobilenetv2_100', 'resnet50', *(f'efficientnet_b{size}' for size in range(4)))


def build_parser(program: str = 'timm-repaint benchmark') -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description='Time and memory of the repaint phase against plain training. What follows -- are options of '
        'train.py for both, as in: -- --repaint-prob 0.25 --device cpu',
        epilog='variants: ' + '; '.join(f'{name}: {" ".join(own)}' for name, own in VARIANTS.items() if own),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    help_models = 'timm classifiers, or EfficientDets of effdet'
    add('--models', nargs='+', default=list(PAPER_MODELS), metavar='NAME', help=help_models)
    add('--img-size', type=at_least(1), default=224, metavar='PX', help='height and width')
    add('--batch-size', type=at_least(1), default=8, metavar='N', help='images in a batch')
    add('--variants', nargs='*', metavar='NAME', help='ways to pay less, from below; without a name: all')
    add('--rounds', type=at_least(1), default=7, metavar='N', help="pairs of timings; their ratios' median counts")
    add('--steps', type=at_least(1), default=3, metavar='N', help='batches of a timing, rounded up to whole patterns')
    text = 'read images while measuring, in this process (or -- -j N), masks cut on the fly (or -- --mask-dir DIR); '
    text += 'unset: built-in images held in memory with their masks, as a loader ahead of time has them'
    add('--data', metavar='DIR', help=text)
    add('--output', type=Path, required=True, metavar='DIR', help='where the figures go')
    return parser


def read_cases(parser: argparse.ArgumentParser) -> tuple[list[Case], argparse.Namespace]:
    """What the command line asks for, and its options.

    Raises:
        UsageError: if there is no such model, variant or folder.
    """
    argv = sys.argv[1:]
    cut = argv.index('--') if '--' in argv else len(argv)
    options, extra = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    for name in options.models:
        is_detector(name)  # stops on one that there is not
    if options.data and not os.path.isdir(options.data):
        raise UsageError(f'data folder {options.data} does not exist')
    cases = plan_cases(options, extra)
    logger.setLevel('ERROR')  # the engine's own log would tear the bar
    for case in cases:
        train_options(case, repaint=True)  # stops on a conflict
    return cases, options


def main() -> None:
    run_cases(*read_cases(build_parser()))


def make_tables(figures: Sequence[dict[str, Any]]) -> str:
    return f'## Cost of the repaint phase\n\n{cost_table(figures)}\n'


def run_cases(
    cases: Sequence[Case],
    options: argparse.Namespace,
    tables: Callable[[Sequence[dict[str, Any]]], str] = make_tables,
    look_into: Callable[[Arm], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Measure case by case with a progress bar, keep the files up to date, print the tables; returns the figures.

    Args:
        cases: What to measure.
        options: Of the command line.
        tables: Makes Markdown of the figures.
        look_into: What else is to be known of each repaint phase, by name.
    """
    with as_mistake(f'--output {options.output}'):
        options.output.mkdir(parents=True, exist_ok=True)
    check_ours(options.output / 'benchmark.json', '"machine"', 'benchmark')
    figures: list[dict[str, Any]] = []

    def stages() -> Iterator[dict[str, Any] | None]:
        for case in cases:
            yield from measure(case, options.rounds, look_into)

    for result in progress(stages(), 'benchmark', len(cases) * num_stages(options.rounds)):
        if result is not None:
            figures.append(result)
            content = {'machine': {**dict(facts()), 'threads': torch.get_num_threads()}, 'cases': figures}
            (options.output / 'benchmark.json').write_text(json.dumps(content, indent=2) + '\n')
            (options.output / 'benchmark.md').write_text(tables(figures))
    print(tables(figures))
    return figures


if __name__ == '__main__':
    run_command(main)
