"""Cost of the repaint phase and where it comes from: `python -m bench.cost --models resnet50 --output DIR`.

The cases, options and figures of `timm-repaint benchmark`; beside them whose time it is (`stopwatch.py`), how large the
networks are (`count.py`), how cost grows with `--sizes` and `--batch-sizes`, and a plot, `shares.png`.
"""

import argparse
import statistics
from typing import Any

from bench.cost.count import count_networks
from bench.cost.plot import draw_shares
from bench.cost.stopwatch import PARTS, time_parts
from bench.cost.tables import make_tables
from timm_repaint.benchmark.__main__ import build_parser, read_cases, run_cases
from timm_repaint.benchmark.measure import Arm
from timm_repaint.commandline import at_least
from timm_repaint.errors import run_command

SHARE_ROUNDS = 3


def look_into(arm: Arm) -> dict[str, Any]:
    """The sizes of a repaint phase's networks, and the share of the time of each part."""
    shares = [time_parts(arm) for _ in range(SHARE_ROUNDS)]
    means = {part: statistics.mean(each[part] for each in shares) for part in PARTS}
    return {'networks': count_networks(arm), 'shares': means}


def add_growth(parser: argparse.ArgumentParser) -> None:
    """Add the options of how cost grows."""
    add = parser.add_argument
    add('--sizes', type=at_least(1), nargs='+', default=[], metavar='PX', help='more image sizes')
    add('--batch-sizes', type=at_least(1), nargs='+', default=[], metavar='N', help='more batches')


def main() -> None:
    parser = build_parser('python -m bench.cost')
    add_growth(parser)
    cases, options = read_cases(parser)
    figures = run_cases(cases, options, make_tables, look_into)
    draw_shares(figures, options.output / 'shares.png')


if __name__ == '__main__':
    run_command(main)
