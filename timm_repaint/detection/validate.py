"""Validate the detector of a run: `python -m timm_repaint.detection.validate RUN_DIR`.

RUN_DIR is the output folder of a run, or its `fine_tune/`. Any option of the training overrides, so that another split,
size or batch can be asked for: `--val-split cue-conflict`. Prints loss, mAP@0.5:0.95 and AP@0.5 of the last checkpoint
(of its weight average, with `--model-ema`); of another file with `--initial-checkpoint FILE`.
"""

import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from timm import utils

from timm_repaint.detection.installed import load_functions
from timm_repaint.detection.options import build_parser, find_problems
from timm_repaint.engine.mistakes import explained, refused
from timm_repaint.engine.run import build_network
from timm_repaint.errors import UsageError, run_command
from timm_repaint.options.option_table import check_numbers, check_words
from timm_repaint.options.run_file import NO_WEIGHTS, is_detection, read_args


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """The run's options with those of the command line on top; None: the process's.

    Raises:
        UsageError: if the folder holds no run of a detector, or no checkpoint.
    """
    parser = build_parser(run_dir=True)
    run_dir = parser.parse_args(argv).run_dir
    options = read_args(run_dir, 'RUN_DIR is the output folder of a run of timm_repaint.detection.train')
    checkpoint = os.path.join(run_dir, 'last.pth.tar')
    if not is_detection(options):
        raise UsageError(f'{run_dir} is no run of timm_repaint.detection.train')
    parser.set_defaults(**{**options, **NO_WEIGHTS, 'initial_checkpoint': checkpoint})
    args = parser.parse_args(argv)
    for problem in (*check_numbers(args), *check_words(args), *find_problems(build_parser(), args)):
        parser.error(problem)
    if not args.val_split:
        parser.error('the run has no validation split; name one with --val-split')
    if not os.path.isfile(args.initial_checkpoint):
        raise UsageError(f'{args.initial_checkpoint} does not exist: the run has no checkpoint yet')
    return args


def trained_classes(args: Namespace) -> tuple[str, ...]:
    """The classes of the run's own training split; where its data are elsewhere now, of the one beside the images."""
    from timm_repaint.detection.coco_loaders import read_class_names

    own = read_args(args.run_dir)
    with suppress(UsageError):
        return read_class_names(Namespace(**{name: own.get(name, value) for name, value in vars(args).items()}))
    return read_class_names(args)


@explained()
def measure(args: Namespace) -> OrderedDict[str, float]:
    """'loss', 'map' and 'ap50' of the checkpoint on the split of the options; see `evaluate.validate`."""
    functions = load_functions()
    from timm_repaint.detection.coco_loaders import build_eval_loader, check_same_classes
    from timm_repaint.detection.evaluate import validate

    network = build_network(args, functions)
    device, precision = network.device, network.precision
    with refused('the options of data, such as --interpolation'):
        loader = build_eval_loader(network)
    check_same_classes(trained_classes(args), loader.dataset.annotations.class_names)
    return validate(network.model, loader, None, args, device, precision.autocast, precision.model_dtype)


def main() -> None:
    """Validate and print the figures."""
    utils.setup_default_logging()
    args = parse_args()
    metrics = measure(args)
    if utils.is_primary(args):
        figures = f'mAP@0.5:0.95 {metrics["map"]:.2f}  AP@0.5 {metrics["ap50"]:.2f}'
        print(f'{args.val_split}: loss {metrics["loss"]:.4f}  {figures}')


if __name__ == '__main__':
    run_command(main)
