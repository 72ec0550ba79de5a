"""The evidence bench: `python -m bench.evidence DATA --output DIR` trains arms x sizes x seeds; their table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.evidence.arms import ARMS
from bench.evidence.bench import Bench, run_bench
from timm_repaint.commandline import at_least, goes_on
from timm_repaint.errors import run_command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m bench.evidence',
        description='Train each arm on each set of images with each seed, and compare. A second call goes on where '
        'the first stopped. What follows -- goes to every run: options of train.py.',
        epilog='arms: ' + '; '.join(f'{arm.name} ({arm.shows})' for arm in ARMS.values()),
    )
    add = parser.add_argument
    add(
        'data',
        nargs='+',
        metavar='DATA',
        help='folder with train/ and validation/ (or val/); shapes: built-in set',
    )
    add('--output', type=Path, required=True, metavar='DIR', help='where runs, table and plot go')
    add(
        '--sizes',
        type=at_least(1),
        nargs='+',
        default=[1000],
        metavar='N',
        help='numbers of training images; the first ones of each class (default: 1000)',
    )
    add(
        '--arms',
        nargs='+',
        default=['headline'],
        metavar='ARM',
        help='names from below, all, or headline: plain and repaint (default: headline)',
    )
    add(
        '--arm',
        action='append',
        default=[],
        metavar="NAME='OPTIONS'",
        help='one more arm, of options of train.py in both phases; may come again',
    )
    add('--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N', help='(default: 0 1 2)')
    add('--jobs', type=at_least(1), default=2, metavar='N', help='runs at a time, a core each (default: 2)')
    add(
        '--dev',
        action='store_true',
        help='for choices: train and validate on training images that the reported runs of this size never see',
    )
    add('--dry-run', action='store_true', help='print the commands of the runs that are not done, and stop')
    return parser


def parse_args(argv: Sequence[str]) -> tuple[Bench, bool]:
    """The bench, and whether only its commands are wanted."""
    cut = argv.index('--') if '--' in argv else len(argv)
    args, extra = build_parser().parse_args(argv[:cut]), argv[cut + 1 :]
    seeds = list(dict.fromkeys(args.seeds))
    bench = Bench(args.data, args.output, args.sizes, args.arms, args.arm, seeds, args.dev, args.jobs, extra)
    return bench, args.dry_run


@goes_on
def main() -> int:
    return run_bench(*parse_args(sys.argv[1:]))


if __name__ == '__main__':
    run_command(main)
