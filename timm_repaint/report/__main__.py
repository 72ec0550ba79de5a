"""Reports on finished runs: `timm-repaint report html|tables|shape-bias|gallery|leak`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch

from timm_repaint.commandline import at_least
from timm_repaint.devices import find_device
from timm_repaint.errors import UsageError, run_command
from timm_repaint.report.finished import report_gallery, report_leak
from timm_repaint.report.page import write_page
from timm_repaint.report.page_watch import watch
from timm_repaint.report.shape_bias import report_shape_bias
from timm_repaint.report.tables import RUNS_FOLDER, write_tables
from timm_repaint.report.tables_runs import TITLES

MOVED = 'mini'  # the evidence bench, which was here in version 0.1
PAPER_SEEDS = (1, 2, 3, 4, 5)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog='timm-repaint report', description='Reports on finished runs.')
    commands = parser.add_subparsers(dest='command', required=True)
    tables = commands.add_parser(
        'tables',
        help="the paper's tables beside these runs",
        description='Read runs of the recipes in timm_repaint/recipes/tables and write tables.md and '
        'tables.csv; print the commands of the runs that are missing.',
    )
    add, runs = tables.add_argument, 'folders of runs, or folders that hold them'
    add('runs', nargs='*', type=Path, metavar='RUNS', help=f'{runs}; none: all runs are missing')
    numbers: dict[str, Any] = {'type': int, 'nargs': '+', 'metavar': 'N'}
    add('--tables', choices=TITLES, default=list(TITLES), help='(default: 1 to 7)', **numbers)
    add('--output', type=Path, default=Path('.'), metavar='DIR', help='(default: the current folder)')
    add('--seeds', default=PAPER_SEEDS, help='seeds of each recipe (default: 1 to 5)', **numbers)
    where = 'where the printed commands put missing runs (default: %(default)s)'
    add('--runs-folder', type=Path, default=RUNS_FOLDER, metavar='DIR', help=where)

    html = commands.add_parser(
        'html',
        help='one page of runs: curves, galleries, alarms, cost, options',
        description='Write a page that needs no other file; runs that differ in the seed alone stand together.',
    )
    add = html.add_argument
    add('runs', nargs='+', type=Path, metavar='RUN', help=runs)
    add('--output', type=Path, metavar='FILE', help='(default: RUN/report.html; with several: report.html)')
    add('--watch', action='store_true', help='serve the page to this machine while runs go on; it loads itself anew')
    add('--port', type=at_least(0), default=8016, metavar='N', help='of --watch (default: %(default)s)')

    bias = commands.add_parser(
        'shape-bias',
        help='does a classifier of ImageNet decide by shape or by texture?',
        description='Shape bias of a checkpoint of train.py or fine_tune.py on cue-conflict pictures.',
    )
    add = bias.add_argument
    add('checkpoint', type=Path, metavar='CHECKPOINT', help='of a classifier of the 1000 ImageNet classes')
    add('stimuli', type=Path, metavar='STIMULI', help='folder of <shape><n>-<texture><m>.png')
    gallery = commands.add_parser('gallery', help='images of a run, their masks and repaints, as one PNG')
    add = gallery.add_argument
    add('--output', type=Path, metavar='FILE', help='(default: RUN/gallery.png)')
    add('--images', type=at_least(1), default=8, metavar='N', help='columns (default: 8)')
    add('--copies', type=at_least(1), default=3, metavar='N', help='repaints of each image (default: 3)')
    leak = commands.add_parser('leak', help='do repaints tell the classifier the class?')
    for command in (gallery, leak):
        command.add_argument('run', type=Path, metavar='RUN', help='folder of a train.py --repaint run')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for command in (bias, gallery, leak):
        command.add_argument('--device', default=device, metavar='NAME', help='(default: %(default)s)')
    return parser


def main() -> int:
    """Make a report; returns the process's exit status.

    Raises:
        UsageError: for the bench that is elsewhere now.
    """
    if sys.argv[1:2] == [MOVED]:
        raise UsageError('the evidence bench is in the repository: python -m bench.evidence DATA --output DIR')
    parser = build_parser()
    args = parser.parse_args()
    if args.command == 'html' and args.watch and args.output:
        parser.error('--watch serves the page and writes none; leave out --output')
    if args.command == 'tables':
        write_tables(args.runs, args.output, args.seeds, args.runs_folder, args.tables)
    elif args.command == 'html' and args.watch:
        watch(args.runs, args.port)
    elif args.command == 'html':
        print(write_page(args.runs, args.output))
    elif args.command == 'shape-bias':
        report_shape_bias(args.checkpoint, args.stimuli, find_device(args.device))
    elif args.command == 'gallery':
        report_gallery(args.run, args.output or args.run / 'gallery.png', args.device, args.images, args.copies)
    else:
        report_leak(args.run, args.device)
    return 0


if __name__ == '__main__':
    run_command(main)
