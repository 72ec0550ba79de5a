"""Reports on finished runs: `timm-repaint report tables|shape-bias|gallery|leak`."""

import argparse
import sys

from timm_repaint.errors import UsageError, run_command
from timm_repaint.report.commands import add_commands, run_report

MOVED = 'mini'  # the evidence bench, which was here in version 0.1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='timm-repaint report', description='Reports on finished runs.')
    add_commands(parser.add_subparsers(dest='command', required=True))
    return parser


def main() -> int:
    """Make a report; returns the process's exit status.

    Raises:
        UsageError: for the bench that is elsewhere now.
    """
    if sys.argv[1:2] == [MOVED]:
        raise UsageError('the evidence bench is in the repository: python -m bench.evidence DATA --output DIR')
    run_report(build_parser().parse_args())
    return 0


if __name__ == '__main__':
    run_command(main)
