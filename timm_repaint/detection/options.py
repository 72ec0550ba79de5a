"""The options of the detection scripts: those of train.py with a detector's defaults, less what has no meaning here."""

import argparse
from collections.abc import Iterator
from typing import Any

from timm_repaint.detection.shapes_boxes import SHAPES
from timm_repaint.options import build_parser as build_classification_parser
from timm_repaint.options import check_options
from timm_repaint.options.option_table import add_table
from timm_repaint.options.roles import Role, unlike_defaults

DEFAULTS: dict[str, Any] = {'model': 'tf_efficientdet_d0', 'eval_metric': 'map', 'batch_size': 16}
DEFAULTS |= {'color_jitter': 0.0, 'smoothing': 0.0}

# Options of train.py that a detector does not take, and why.
REFUSED = {
    Role.WHOLE_IMAGE: 'boxes have no place in it',
    Role.MIXING: 'it mixes images or hides parts of them, and their boxes would have to be mixed too',
    Role.CLASSIFIER: "it shapes a classifier; give effdet's own settings with --model-kwargs",
    Role.CLASSIFIER_LOSS: 'it belongs to the loss of a classifier',
    Role.READER: "images and boxes are read in COCO's layout alone",
}


def build_parser(run_dir: bool = False) -> argparse.ArgumentParser:
    """The parser of the detection scripts.

    Args:
        run_dir: Whether the folder of an earlier run comes first on the command line (the fine-tune phase).
    """
    parser = build_classification_parser(run_dir)
    parser.description = 'Train an EfficientDet; with --repaint, on repaints of its images.'
    parser.set_defaults(**DEFAULTS)
    add_table(parser, detection=True)
    parser.add_argument('--task', default='detection', choices=['detection'], help=argparse.SUPPRESS)  # for args.yaml
    hidden = frozenset[str]().union(*(role.names for role in (*REFUSED, Role.FURTHER)))
    for action in parser._actions:  # argparse has no public list of them
        if action.dest in hidden:
            action.help = argparse.SUPPRESS
    return parser


def check_detection(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """`check_options`, and the parser's error at the first option that a detector does not take or cannot use."""
    check_options(parser, args)
    for problem in find_problems(parser, args):
        parser.error(problem)


def find_problems(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each problem."""
    for role, reason in REFUSED.items():
        for flag in unlike_defaults(parser, args, role.names):
            yield f'{flag} does not go with detection: {reason}; leave it out'
    if args.dataset not in ('', SHAPES):
        yield f'--dataset is {args.dataset!r}; a detector reads a folder in COCO\'s layout, or "shapes"'
    if args.dataset == SHAPES and args.train_fraction < 1:
        yield '--train-fraction is for images in files; of shapes give --train-num-samples'
    if args.dataset != SHAPES and (args.train_num_samples or args.val_num_samples):
        yield '--train-num-samples and --val-num-samples are for --dataset shapes; use --train-fraction'
    if args.mask == 'outlines':
        yield '--mask outlines is for the classification set of --dataset shapes; use another --mask'
    if args.pretrained_backbone_path and (args.pretrained or args.initial_checkpoint):
        yield '--pretrained and --initial-checkpoint have weights of the backbone; leave out --pretrained-backbone-path'
    low, high = args.scale_jitter
    if not 0 < low <= high:
        yield f'--scale-jitter is {low} {high}; it takes two factors above 0, the smaller one first'
