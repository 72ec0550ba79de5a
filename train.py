#!/usr/bin/env python3
"""Train an image classifier as timm's script does; with `--repaint`, co-train a generator ahead of the classifier.

The names in this module are those of timm's script, for wrappers that use or replace them. The program is in
`timm_repaint/classification.py`, the stages of a run in `timm_repaint/engine/run.py`, the method in
`timm_repaint/repaint.py`. Where the package is installed, `timm-repaint train` is the same.
"""

import argparse

from timm.models import create_model

from timm_repaint.classification import train_network
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions
from timm_repaint.errors import run_command
from timm_repaint.options import build_config_parser, build_parser, parse_args

config_parser = build_config_parser()
parser = build_parser()


def _parse_args() -> tuple[argparse.Namespace, str]:
    """The options from the command line and the YAML file, and their text for `args.yaml`."""
    return parse_args(parser, config_parser)


def main() -> int:
    """Train; returns the process's exit status."""
    return train_network(parser, _parse_args, lambda: Functions(create_model, train_one_epoch, validate))


if __name__ == '__main__':
    run_command(main)
